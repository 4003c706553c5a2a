"""Functionary 3.2: everything has a recipient, `>>>all` for text and `>>>name` for a call; JSON after a line break."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ref_engine.text.chat.tools.parts import Call, Tool
from ref_engine.text.chat.tools.reader import Steps
from ref_engine.text.chat.tools.schemas import arguments_lark
from ref_engine.text.chat.tools.session import MAX_NAME, Session, compact
from ref_engine.text.grammar.lark import Literals


@dataclass(frozen=True)
class RecipientCalls:
    """The prompt ends with the first `>>>`."""

    begin: str = ">>>"
    everyone: str = "all"
    bare: bool = False

    @property
    def triggers(self) -> Sequence[str]:
        return (self.begin,)

    @property
    def dropped(self) -> Sequence[str]:
        return (f"{self.begin}{self.everyone}\n",)

    def read(self, trigger: str, session: Session) -> Steps[bool]:
        reader = session.reader
        header: list[str] = []
        if (yield from reader.until(("\n",), header.append, MAX_NAME)) is None:
            return False
        name = re.fullmatch(r"\s*([^\s{}\"]+)\s*", "".join(header))
        if name is None or (yield from reader.peek()) != "{":
            return False
        session.start(name[1])
        yield from reader.json(session.arguments)
        session.end()
        return True

    def write(self, calls: Sequence[Call]) -> str:
        return "".join(f"{self.begin}{call.name}\n{compact(dict(call.arguments))}" for call in calls)

    def lark(self, tools: Sequence[Tool], most: int, literal: Literals) -> str:
        rules = [f"one: {' | '.join(f'call{i}' for i in range(len(tools)))}"]
        for i, tool in enumerate(tools):
            rules.append(f"call{i}: {literal(tool.name)} {literal(chr(10))} args{i}\nargs{i}: {arguments_lark(tool)}")
        more = f" ({literal(self.begin)} one){{0,{most - 1}}}" if most > 1 else ""
        return "\n".join([f"calls: one{more}", *rules])
