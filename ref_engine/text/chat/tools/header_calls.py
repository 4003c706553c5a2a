"""Calls whose name stands in a header between tags, with the arguments as JSON behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ref_engine.text.chat.tools.parts import Call, Tool
from ref_engine.text.chat.tools.reader import Steps
from ref_engine.text.chat.tools.schemas import arguments_lark
from ref_engine.text.chat.tools.session import MAX_NAME, Session, compact
from ref_engine.text.grammar.lark import Literals

NAME = r"[^\s<>\[\]{}|\"]+"


@dataclass(frozen=True)
class HeaderCalls:
    """begin + name + middle + arguments + end, as the model writes it; `{i}` in a tag is the number of the call.

    section     tags around all calls
    joint       between two calls
    split       what ends the header; `middle` where it is the same
    pattern     finds the name in the header, which is what stands between `trigger` and `split`
    trigger     begins a call; `begin` where it is the same
    counter     a regular expression of what the model may write for `{i}`
    """

    begin: str
    middle: str
    end: str
    section: tuple[str, str] = ("", "")
    joint: str = ""
    split: tuple[str, ...] = ()
    pattern: str = rf"\s*({NAME})\s*"
    trigger: str = ""
    counter: str = "[0-9]"

    @property
    def triggers(self) -> Sequence[str]:
        return (self.trigger or self.begin,)

    @property
    def dropped(self) -> Sequence[str]:
        return tuple(tag for tag in map(str.strip, self.section) if tag)

    @property
    def bare(self) -> bool:
        return False

    def read(self, trigger: str, session: Session) -> Steps[bool]:
        reader = session.reader
        header: list[str] = []
        if (yield from reader.until(self.split or (self.middle,), header.append, MAX_NAME)) is None:
            return False
        name = re.fullmatch(self.pattern, "".join(header))
        if name is None:
            return False
        yield from reader.space()
        fence = yield from reader.one_of(("```json", "```"))
        yield from reader.space()
        if (yield from reader.peek()) not in ("{", "", *self.end[:1]):
            return False
        session.start(name[1])
        if (yield from reader.peek()) != "{":  # no arguments at all
            session.arguments("{}")
        else:
            yield from reader.json(session.arguments)
        session.end()
        for tag in ("```" if fence else "", self.end.strip().removeprefix("```")):
            if tag:
                yield from reader.space()
                yield from reader.one_of((tag,))
        return True

    def write(self, calls: Sequence[Call]) -> str:
        written = [
            f"{self.begin}{call.name}{self.middle}{compact(dict(call.arguments))}{self.end}".replace("{i}", str(i))
            for i, call in enumerate(calls)
        ]
        return self.section[0] + self.joint.join(written) + self.section[1]

    def lark(self, tools: Sequence[Tool], most: int, literal: Literals) -> str:
        rules, numbered = [], "{i}" in self.begin + self.middle + self.end
        one = " | ".join(f"call{i}" for i in range(len(tools)))
        for i, tool in enumerate(tools):
            begin, middle = literal(self.begin.replace("{i}", "0")), literal(self.middle.replace("{i}", "0"))
            if numbered:  # the number of the call is the model's to count
                begin, middle = self._counted(self.begin, literal), self._counted(self.middle, literal)
            rules.append(f"call{i}: {begin} {literal(tool.name)} {middle} args{i} {literal(self.end)}")
            rules.append(f"args{i}: {arguments_lark(tool)}")
        more = f" ({literal(self.joint)} one){{0,{most - 1}}}" if most > 1 else ""
        head = f"calls: {literal(self.section[0])} one{more} {literal(self.section[1])}"
        return "\n".join([head, f"one: {one}", *rules])

    def _counted(self, tag: str, literal: Literals) -> str:
        before, found, after = tag.partition("{i}")
        return f"{literal(before)} /{self.counter}/ {literal(after)}" if found else literal(tag)
