"""gpt-oss: an answer is messages on channels (the Harmony format), each with a header and a body.

    <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>
    <|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>

Source: https://developers.openai.com/cookbook/articles/openai-harmony
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ref_engine.text.chat.tools.parser import joined
from ref_engine.text.chat.tools.parts import Part, Text, Thinking, Tool
from ref_engine.text.chat.tools.reader import Reader, Steps
from ref_engine.text.chat.tools.schemas import arguments_lark
from ref_engine.text.chat.tools.session import Session
from ref_engine.text.grammar.lark import Literals

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
TAGS = (START, CHANNEL, MESSAGE, CONSTRAIN, *ENDS)
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<|]+)")
MAX_HEADER = 1000


class ChannelParser:
    """The counterpart of Parser for answers on channels."""

    def __init__(self, tools: Sequence[Tool] = (), *, thinking: bool = True, prompt: str = "") -> None:
        self._parts: list[Part] = []
        self._reader = Reader()
        self._session = Session(self._reader, {tool.name: tool for tool in tools}, self._parts_put)
        self._has_tools = bool(tools)
        self._thinking = thinking
        self._header = _open_header(prompt)
        self._steps = self.steps()
        self._done = next(self._steps, "end") == "end"

    def push(self, text: str) -> list[Part]:
        self._reader.push(text)
        return self._go() if text else []

    def flush(self) -> list[Part]:
        self._reader.end()
        return self._go()

    def _go(self) -> list[Part]:
        if not self._done:
            self._done = next(self._steps, "end") == "end"
        parts, self._parts = joined(self._parts), []
        return parts

    def _parts_put(self, part: Part) -> None:
        self._parts.append(part)

    def steps(self) -> Steps[None]:
        header, ended = yield from self._first_header()
        if ended:
            return
        while True:
            yield from self._body(header)
            header, ended = yield from self._read_header("")
            if ended:
                return

    def _first_header(self) -> Steps[tuple[str, bool]]:
        """The header that the prompt has begun, or a whole one. An answer that goes on without one is plain text."""
        begun = self._header
        if begun is None or begun.endswith(MESSAGE):
            return (begun, False) if begun else (yield from self._read_header(""))
        lead = yield from self._reader.one_of((CHANNEL, " to=", MESSAGE, *ENDS))
        if lead is None or lead == MESSAGE or lead in ENDS:
            return begun if lead == MESSAGE else "", False
        return (yield from self._read_header(begun + lead))

    def _read_header(self, begun: str) -> Steps[tuple[str, bool]]:
        """Up to the next message's body; text that stands outside of any message is shown."""
        reader = self._reader
        if not begun:
            tag: str | None = ENDS[0]
            while tag in ENDS:
                outside: list[str] = []
                tag = yield from reader.until((START, CHANNEL, MESSAGE, *ENDS), outside.append)
                text = "".join(outside)
                if text.strip():
                    self._parts.append(Text(text))
            if tag is None or tag == MESSAGE:
                return "", tag is None
            begun = tag
        pieces = [begun]
        tag = yield from reader.until((MESSAGE,), pieces.append, MAX_HEADER)
        return "".join(pieces), tag is None

    def _body(self, header: str) -> Steps[None]:
        recipient = _RECIPIENT.search(header)
        if recipient is not None and self._has_tools:
            yield from self._call(recipient[1])
        elif f"{CHANNEL}analysis" in header:
            yield from self._reader.until((*ENDS, START), self._think)
        else:
            yield from self._reader.until((*ENDS, START), lambda text: self._show(text))

    def _call(self, name: str) -> Steps[None]:
        self._session.start(name)
        yield from self._reader.space()
        if (yield from self._reader.peek()) == "{":
            yield from self._reader.json(self._session.arguments)
        else:
            yield from self._reader.until((*ENDS, START), self._session.arguments)
        self._session.end()

    def _think(self, text: str) -> None:
        if text and self._thinking:
            self._parts.append(Thinking(text))

    def _show(self, text: str) -> None:
        if text:
            self._parts.append(Text(text))


def _open_header(prompt: str) -> str | None:
    """The header that the end of a prompt has begun: after its last <|start|>; None where there is none."""
    _, found, header = prompt.rpartition(START)
    return header if found and not any(end in header for end in ENDS) and header.count(MESSAGE) <= 1 else None


def channel_lark(tools: Sequence[Tool], most: int, literal: Literals) -> str:
    """Calls on the commentary channel; one, since each ends the turn."""
    rules = [f"calls: {' | '.join(f'call{i}' for i in range(len(tools)))}"]
    for i, tool in enumerate(tools):
        head = literal(f"{CHANNEL}commentary to=functions.{tool.name} {CONSTRAIN}json{MESSAGE}")
        rules.append(f"call{i}: {head} args{i}\nargs{i}: {arguments_lark(tool)}")
    return "\n".join(rules)
