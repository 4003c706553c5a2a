"""Calls as JSON: {"name": ..., "arguments": {...}}, alone, between tags, in a list, or with the name as the key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ref_engine.text.chat.tools.parts import Call, Tool
from ref_engine.text.chat.tools.reader import Steps
from ref_engine.text.chat.tools.schemas import arguments_lark
from ref_engine.text.chat.tools.session import MAX_NAME, Session, compact
from ref_engine.text.grammar.lark import Literals, quoted

_NAMES = ("name", "tool_name", "function")
_ARGUMENTS = ("arguments", "parameters", "args", "input")


@dataclass(frozen=True)
class JsonCalls:
    """One JSON value holds name and arguments.

    begin, end   the tags around a call, or around the list of all calls, as the model writes them
    array        all calls in one list
    joint        between calls that are not in a list and share one pair of tags; None: each call has its own pair
    name_key, arguments_key   as the model writes them; others are understood
    keyed        {"name": {arguments}} instead
    others       more texts that begin a call
    bare         a call may stand without tags where the answer begins
    """

    begin: str
    end: str
    array: bool = False
    joint: str | None = None
    name_key: str = "name"
    arguments_key: str = "arguments"
    keyed: bool = False
    others: tuple[str, ...] = ()
    bare: bool = False

    @property
    def triggers(self) -> Sequence[str]:
        return tuple(tag for tag in (self.begin.strip(), *self.others) if tag)

    @property
    def dropped(self) -> Sequence[str]:
        return ()

    def read(self, trigger: str, session: Session) -> Steps[bool]:
        reader, before = session.reader, session.n_calls
        yield from reader.space()
        close = "```" if (yield from reader.one_of(("```json", "```"))) else ""
        yield from reader.space()
        if (yield from reader.peek()) == "[":
            reader.take(1)
        while True:
            session.hold()
            yield from reader.space()
            if not (yield from self._object(session, known=not trigger)):
                break
            session.hold()
            yield from reader.space()
            if not (yield from reader.one_of((",", ";"))) and (yield from reader.peek()) != "{":
                break
        if session.n_calls == before:
            return False
        session.back()
        yield from self._finish(close, session)
        return True

    def _finish(self, fence: str, session: Session) -> Steps[None]:
        """What stands behind the calls; some of it may be missing."""
        for tag in ("]", fence, self.end.strip()):
            if tag:
                yield from session.reader.space()
                yield from session.reader.one_of((tag,))

    def _object(self, session: Session, known: bool) -> Steps[bool]:
        """One call. `known`: only if it names one of the tools; so a JSON answer that is no call stays text."""
        reader = session.reader
        if (yield from reader.peek()) != "{":
            return False
        reader.take(1)
        name: str | None = None
        early: str | None = None  # arguments that came before the name
        while True:
            yield from reader.space()
            char = yield from reader.peek()
            if char == ",":
                reader.take(1)
            elif char == "}":
                reader.take(1)
                break
            elif char != '"':
                return self._broken(session)
            else:
                key = yield from self._text(session)
                yield from reader.space()
                if key is None or (yield from reader.peek()) != ":":
                    return self._broken(session)
                reader.take(1)
                yield from reader.space()
                if self.keyed and name is None:
                    if known and key not in session.tools:
                        return False
                    session.start(key)
                    name = key
                    yield from self._arguments(session)
                elif key in _NAMES and name is None and (yield from reader.peek()) == '"':
                    name = yield from self._text(session)
                    if name is None or not name or len(name) > MAX_NAME or (known and name not in session.tools):
                        return False
                elif key in _ARGUMENTS and name is not None and not session.in_call and early is None:
                    session.start(name)
                    yield from self._arguments(session)
                else:
                    pieces: list[str] = []
                    yield from reader.json(pieces.append)
                    if key in _ARGUMENTS:
                        early = "".join(pieces)
        if name is None:
            return False
        if not session.in_call:
            session.start(name)
            session.arguments(_unwrapped(early or "{}"))
        session.end()
        return True

    def _broken(self, session: Session) -> bool:
        """The object ends early or goes wrong: no call, unless it has been handed out as one."""
        if not session.in_call:
            return False
        session.end("the call is not complete")
        return True

    def _arguments(self, session: Session) -> Steps[None]:
        """The value of the arguments, as it comes; a string that holds the JSON is unwrapped, and so is null."""
        if (yield from session.reader.peek()) == "{":
            yield from session.reader.json(session.arguments)
            return
        pieces: list[str] = []
        yield from session.reader.json(pieces.append)
        session.arguments(_unwrapped("".join(pieces)))

    def _text(self, session: Session) -> Steps[str | None]:
        pieces: list[str] = []
        if not (yield from session.reader.json(pieces.append)):
            return None
        try:
            text = json.loads("".join(pieces))
        except ValueError:
            return None
        return text if isinstance(text, str) else None

    def write(self, calls: Sequence[Call]) -> str:
        written = [
            compact({call.name: dict(call.arguments)})
            if self.keyed
            else f'{{"{self.name_key}": {quoted(call.name)}, "{self.arguments_key}": {compact(dict(call.arguments))}}}'
            for call in calls
        ]
        if self.array:
            return f"{self.begin}[{', '.join(written)}]{self.end}"
        if self.joint is not None:
            return f"{self.begin}{self.joint.join(written)}{self.end}"
        return "\n".join(f"{self.begin}{one}{self.end}" for one in written)

    def lark(self, tools: Sequence[Tool], most: int, literal: Literals) -> str:
        rules = []
        for i, tool in enumerate(tools):
            head = (
                f"{{{quoted(tool.name)}: "
                if self.keyed
                else f'{{"{self.name_key}": {quoted(tool.name)}, "{self.arguments_key}": '
            )
            rules.append(f'call{i}: {literal(head)} args{i} "}}"\nargs{i}: {arguments_lark(tool)}')
        one = " | ".join(f"call{i}" for i in range(len(tools)))
        begin, end = literal(self.begin), literal(self.end)
        more = f"{{0,{most - 1}}}"
        if self.array:
            body = f'{begin} "[" one' + (f' (", " one){more}' if most > 1 else "") + f' "]" {end}'
        elif self.joint is not None:
            body = f"{begin} one" + (f" ({literal(self.joint)} one){more}" if most > 1 else "") + f" {end}"
        else:
            body = "tagged" + (f' ("\\n" tagged){more}' if most > 1 else "")
            rules.append(f"tagged: {begin} one {end}")
        return "\n".join([f"calls: {body}", f"one: {one}", *rules])


def _unwrapped(text: str) -> str:
    """The JSON in a JSON string; {} for null, and anything else as it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if value is None or value == "":
        return "{}"
    return value if isinstance(value, str) else text
