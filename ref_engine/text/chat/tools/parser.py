"""An answer as it comes, token by token, taken apart into text, thinking and calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ref_engine.text.chat.tools.formats import ThinkingTags
from ref_engine.text.chat.tools.parts import Call, Part, Text, Thinking, Tool
from ref_engine.text.chat.tools.reader import Reader, Steps
from ref_engine.text.chat.tools.session import Session, Syntax

_NAME = "name-of-a-call"
_TAGS = ("<", "[", "`")  # first characters of tags


class Parser:
    """Reads one answer. What may be the beginning of a tag is held back until it is one, or is not.

    `push` takes the next piece of the answer's text, control tokens of the format included, and `flush` its end; both
    give the parts that are certain. How the text is cut makes no difference to the parts once neighbours are joined.

    White space before thinking and calls, between them and behind them is no part of the text.
    """

    def __init__(
        self,
        syntax: Syntax,
        tools: Sequence[Tool] = (),
        thinking: ThinkingTags | None = None,
        *,
        prompt: str = "",
        dropped: Sequence[str] = (),
    ) -> None:
        """tools: none means that nothing is taken for a call. prompt: what the answer continues, of which the end is
        looked at: it may have opened thinking, or a call. dropped: tags to leave out of the text."""
        self._parts: list[Part] = []
        self._reader = Reader()
        self._tools: Mapping[str, Tool] = {tool.name: tool for tool in tools}
        self._session = Session(self._reader, self._tools, self._put)
        self._syntax = syntax
        self._thinking = thinking
        self._dropped = tuple(dropped)
        self._space = ""  # held back: it is dropped if a call follows
        self._thoughts = False  # some thinking has been shown
        self._bare_start = False  # at the beginning of what is shown, or behind a call
        self._prompt = prompt.rstrip()
        self._steps = self.steps()
        self._done = next(self._steps, "end") == "end"

    def push(self, text: str) -> list[Part]:
        self._reader.push(text)
        return self._go() if text else []

    def flush(self) -> list[Part]:
        """The answer has ended; what was held back comes out, but for a tag behind a call that was cut short."""
        rest = self._reader.rest.strip()
        if self._session.n_calls and not self._session.in_call and rest[:1] in _TAGS and rest in self._closing():
            self._reader.take(len(self._reader.rest))
        self._reader.end()
        return self._go()

    def _closing(self) -> str:
        """What this syntax writes behind a call's name."""
        return self._syntax.write([Call(_NAME, {})]).rpartition(_NAME)[2]

    def _go(self) -> list[Part]:
        if not self._done:
            self._done = next(self._steps, "end") == "end"
        parts, self._parts = joined(self._parts), []
        return parts

    def _put(self, part: Part) -> None:
        self._parts.append(part)
        self._space = ""
        self._bare_start = True

    # -- the answer as one text

    def steps(self) -> Steps[None]:
        opened = yield from self._thought()
        if not opened:
            yield from self._answer()

    def _thought(self) -> Steps[bool]:
        """Thinking at the beginning; whether it ended the answer."""
        tags = self._thinking
        if tags is None:
            return False
        self._bare_start = self._prompt.endswith(tags.end.strip())
        if not self._prompt.endswith(tags.begin.rstrip()):
            mark = self._reader.mark()
            yield from self._reader.space()
            if (yield from self._reader.one_of((tags.begin.strip(),))) is None:
                self._reader.rewind(mark)
                return False
            self._reader.release()
        space = ""

        def think(text: str) -> None:
            nonlocal space
            text = space + text if space or self._thoughts else text.lstrip()
            shown = text.rstrip()
            space = text[len(shown) :] if shown or self._thoughts else ""
            if shown:
                self._thoughts = True
                self._parts.append(Thinking(shown))

        # a call by control tokens ends thinking that has not been closed
        calls = [tag for tag in (*self._syntax.dropped, *self._syntax.triggers) if tag[:2] in ("<|", "<｜")]
        tag = yield from self._reader.until((tags.end.strip(), *(calls if self._tools else ())), think)
        if tag is None:
            return True
        self._bare_start = True
        if tag in self._syntax.triggers:
            yield from self._call(tag)
        elif tag not in calls:
            yield from self._reader.space()
        return False

    def _answer(self) -> Steps[None]:
        syntax, reader = self._syntax, self._reader
        triggers = tuple(syntax.triggers) if self._tools else ()
        dropped = (*(syntax.dropped if self._tools else ()), *self._dropped)
        prefilled = next((tag for tag in triggers if self._prompt.endswith(tag)), None)
        if prefilled is not None:
            rest = [tag.removeprefix(prefilled) for tag in dropped if tag.startswith(prefilled)]
            if not (yield from reader.one_of(rest)):
                yield from self._call(prefilled)
        elif self._tools and syntax.bare:
            yield from self._bare()
        while True:
            tag = yield from reader.until((*triggers, *dropped), self._text)
            if tag is None:
                break
            if tag in triggers:
                yield from self._call(tag)
            else:
                self._bare_start = True
        if self._space and not self._session.n_calls:
            self._parts.append(Text(self._space))

    def _bare(self) -> Steps[None]:
        self._session.hold()
        if not (yield from self._syntax.read("", self._session)):
            self._session.back()

    def _call(self, trigger: str) -> Steps[None]:
        """What follows a trigger; it is text after all where that is no call."""
        self._session.hold()
        if not (yield from self._syntax.read(trigger, self._session)):
            self._session.back()
            self._text(trigger)

    def _text(self, text: str) -> None:
        """Text to show; white space waits for what follows it."""
        if not text:
            return
        text = self._space + text
        if self._bare_start:
            text = text.lstrip()
        shown = text.rstrip()
        self._space = text[len(shown) :]
        if shown:
            self._parts.append(Text(shown))
            self._bare_start = False


def joined(parts: Sequence[Part]) -> list[Part]:
    """Neighbouring pieces of one text as one piece."""
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Text) and isinstance(last, Text):
            found[-1] = Text(last.text + part.text)
        elif isinstance(part, Thinking) and isinstance(last, Thinking):
            found[-1] = Thinking(last.text + part.text)
        else:
            found.append(part)
    return found
