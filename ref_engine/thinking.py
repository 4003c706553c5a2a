"""Thinking that is part of a text: where it is open, and making it end once its budget is spent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ThinkingRule:
    """start    the text that opens it ("<think>"); only the first one counts
    end      the text that closes it ("</think>")
    is_open  the prompt has opened it already
    budget   tokens of thinking after which `close` is put into the text; None: no limit
    close    token ids that end it: those of a line break, the end tag and what usually follows
    """

    start: str
    end: str
    is_open: bool = False
    budget: int | None = None
    close: tuple[int, ...] = ()


class ThinkingState:
    """Follows one text. `push` takes what each token adds to it; `forced` is what must come next."""

    def __init__(self, rule: ThinkingRule) -> None:
        self.rule = rule
        self.open = rule.is_open
        self.tokens = 0
        """Tokens of thinking so far, its tags included."""
        self.forced: tuple[int, ...] = ()
        self._seen = ""
        self._over = False

    def push(self, text: str) -> bool:
        """A token has been added whose text is `text`, maybe incomplete. Returns whether it was one of thinking."""
        if self._over:
            return False
        self._seen += text
        if not self.open:
            # only the beginning of the text can open it: what comes after other words is talk about the tag
            begun = self._seen.lstrip()
            if not begun.startswith(self.rule.start):
                self._over = not self.rule.start.startswith(begun)
                return False
            self.open = True
            self._seen = begun.removeprefix(self.rule.start)
        self.tokens += 1
        if self.rule.end in self._seen:
            self.open, self._over = False, True  # what is left of `forced` follows the end tag
        elif self.rule.budget is not None and self.tokens >= self.rule.budget and not self.forced:
            self.forced = self.rule.close
        else:
            self._seen = self._seen[-2 * len(self.rule.end) :]
        return True

    def take_forced(self) -> int | None:
        """The next token that is forced, or None where the model chooses."""
        if not self.forced:
            return None
        token, *rest = self.forced
        self.forced = tuple(rest)
        return token
