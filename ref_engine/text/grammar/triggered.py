"""Text that is free until one of a few strings occurs in it: from there on a grammar holds, and where the grammar has
been met the text is free again. So a model may call a tool or not, and where it does, the call is a good one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ref_engine.errors import GrammarError
from ref_engine.text.grammar.constraint import Grammar, GrammarConstraint
from ref_engine.text.grammar.lark import Literals
from ref_engine.text.tokenizer.base import Tokenizer


@dataclass(frozen=True)
class Trigger:
    """text     what begins what the grammar governs
    opening  a beginning of the grammar's texts that ends with the trigger, or "" where they do not have it
    bare     only where the whole text begins with it, but for white space; then it is the grammar's to read
    """

    text: str
    opening: str = ""
    bare: bool = False


class TriggeredGrammar:
    """A grammar that waits for a trigger. Immutable, and safe to share between threads."""

    def __init__(self, grammar: Grammar, triggers: Sequence[Trigger], *, begun: str = "", skip: str = "") -> None:
        """begun: a trigger that the prompt ends with. skip: a text that may come before one that is `bare`.

        Raises GrammarError where an opening is not one of the grammar's texts.
        """
        self.tokenizer = grammar.tokenizer
        self._starts = {trigger.text.encode(): _after(grammar, trigger) for trigger in triggers if not trigger.bare}
        self._bare = {trigger.text.encode(): grammar.constraint() for trigger in triggers if trigger.bare}
        self._begun = self._starts[begun.encode()] if begun else None
        self._skip = skip.encode()

    def constraint(self) -> TriggeredConstraint:
        """The state before the first token of a new text."""
        inside = None if self._begun is None else self._begun.copy()
        return TriggeredConstraint(self.tokenizer, self._starts, self._bare, self._skip, inside)


def _after(grammar: Grammar, trigger: Trigger) -> GrammarConstraint:
    state, tokenizer = grammar.constraint(), grammar.tokenizer
    for piece, is_token in Literals(tokenizer.vocab).split(trigger.opening):
        ids = [tokenizer.vocab.token_to_id[piece]] if is_token else tokenizer.trie.tokenize_bytes(piece.encode())
        for token in ids:
            state.accept(token)
    return state


class TriggeredConstraint:
    """The state of one text. For one thread at a time.

    `_inside`: the grammar's state, None in free text. `_tail`: the end of what may be read as free text, as far as it
    may be the beginning of a trigger; None where the grammar alone says how the text goes on. Both are there behind a
    text that meets the grammar, when what follows may be more of it, or free.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        starts: Mapping[bytes, GrammarConstraint],
        bare: Mapping[bytes, GrammarConstraint],
        skip: bytes,
        inside: GrammarConstraint | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._starts = starts
        self._bare = bare
        self._skip = skip
        self._reach = max(map(len, starts), default=1) - 1
        self._inside = inside
        self._tail = b"" if inside is None else None
        self._at_start = bool(bare) and inside is None

    def allows(self, token: int) -> bool:
        if self._inside is not None and self._inside.allows(token):
            return True
        return self._tail is not None and self._goes_on(token, self._tail)

    def mask(self) -> npt.NDArray[np.bool_]:
        """See `Constraint.mask`. In free text it tries all tokens, which takes a while and is hardly ever needed."""
        if self._tail is None:
            assert self._inside is not None
            return self._inside.mask()
        mask = np.array([self._goes_on(token, self._tail) for token in range(self._tokenizer.n_vocab)], np.bool_)
        return mask if self._inside is None else mask | self._inside.mask()

    def accept(self, token: int) -> None:
        inside = self._inside
        free = None if self._tail is None else self._tail + self._text(token)
        if inside is not None and inside.allows(token):
            inside.accept(token)
            if inside.is_complete:
                self._inside, self._tail = None, b""
            elif inside.is_accepting:
                self._tail = b""
            else:
                self._tail = None if free is None or self._begun(free) else free
            return
        if self._tail is None or free is None or not self._goes_on(token, self._tail):
            raise GrammarError(f"token {token} is not allowed here")
        begun = self._begun(free)
        if begun is not None:
            self._inside, self._tail, self._at_start = self._fed(*begun), None, False
            return
        self._inside = None
        self._at_start = self._at_start and self._may_be_bare(free)
        self._tail = free if self._at_start else free[max(len(free) - self._reach, 0) :]

    def way_out(self, most: int, after: int | None = None) -> list[int] | None:
        """See `GrammarConstraint.way_out`; free text may end at once."""
        state = self
        if after is not None:
            state = self._copy()
            state.accept(after)
        return [] if state._inside is None or state.is_accepting else state._inside.way_out(most)

    @property
    def is_accepting(self) -> bool:
        return self._tail is not None

    @property
    def is_complete(self) -> bool:
        """Never: free text can always go on."""
        return False

    def _copy(self) -> TriggeredConstraint:
        inside = None if self._inside is None else self._inside.copy()
        twin = TriggeredConstraint(self._tokenizer, self._starts, self._bare, self._skip, inside)
        twin._tail, twin._at_start = self._tail, self._at_start
        return twin

    # -- free text

    def _text(self, token: int) -> bytes:
        return b"" if token in self._tokenizer.vocab.eog_ids else self._tokenizer.token_bytes(token)

    def _goes_on(self, token: int, tail: bytes) -> bool:
        """Whether free text with this token has no trigger, or nothing behind it that the grammar would not have."""
        begun = self._begun(tail + self._text(token))
        return begun is None or self._fed(*begun) is not None

    def _begun(self, text: bytes) -> tuple[GrammarConstraint, bytes] | None:
        """Where a trigger is in the text: the grammar's state at it, and the bytes that follow."""
        if self._at_start:
            begin = self._begin(text)
            for trigger, state in self._bare.items():
                if begin.startswith(trigger):
                    return state, begin
        places = [(text.find(trigger), -len(trigger), trigger) for trigger in self._starts if trigger in text]
        if not places:
            return None
        at, _, trigger = min(places)
        return self._starts[trigger], text[at + len(trigger) :]

    def _begin(self, text: bytes) -> bytes:
        """The text without what may come before a bare trigger."""
        begin = text.lstrip()
        return begin.removeprefix(self._skip).lstrip() if self._skip else begin

    def _may_be_bare(self, text: bytes) -> bool:
        begin = self._begin(text)
        return any(trigger.startswith(begin) for trigger in self._bare) or self._skip.startswith(text.lstrip())

    def _fed(self, state: GrammarConstraint, rest: bytes) -> GrammarConstraint | None:
        """The state behind these bytes; None where the grammar does not have them."""
        state = state.copy()
        for token in self._tokenizer.trie.tokenize_bytes(rest) if rest else ():
            if not state.allows(token):
                return None
            state.accept(token)
        return state
