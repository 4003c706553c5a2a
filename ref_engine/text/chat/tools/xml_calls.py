"""Calls whose arguments stand between tags of their own, one by one: the name of each, then its value as bare text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ref_engine.text.chat.tools.parts import Call, Tool
from ref_engine.text.chat.tools.reader import Steps
from ref_engine.text.chat.tools.schemas import arguments_schema, parameter_schema, types_of
from ref_engine.text.chat.tools.session import MAX_NAME, Session, compact, read_json
from ref_engine.text.chat.tools.xml_grammar import value_rules
from ref_engine.text.grammar.lark import Literals


@dataclass(frozen=True)
class XmlCalls:
    """begin + name + middle, then for each argument key_begin + key + key_end + value + value_end, then end.

    As the model writes it, white space included; reading is lenient with white space between tags.

    section     tags around calls, each time or once (`each`)
    joint       between two calls
    typed       key_end where it says whether the value is a text: (for a text, for JSON)
    name_ends   what ends the name when reading; the last of them, (key_begin, end), are left for what follows
    pad         white space around a value that is not part of it
    """

    begin: str
    middle: str
    key_begin: str
    key_end: str
    value_end: str
    end: str
    section: tuple[str, str] = ("", "")
    each: bool = True
    joint: str = "\n"
    typed: tuple[str, str] | None = None
    pad: str = ""

    @property
    def triggers(self) -> Sequence[str]:
        return (self.begin,)

    @property
    def dropped(self) -> Sequence[str]:
        return tuple(tag for tag in map(str.strip, self.section) if tag)

    @property
    def bare(self) -> bool:
        return False

    def read(self, trigger: str, session: Session) -> Steps[bool]:
        reader = session.reader
        header: list[str] = []
        middle, key, end = self.middle.strip(), self.key_begin.strip(), self.end.strip()
        found = yield from reader.until(tuple(filter(None, (middle, key, end))), header.append, MAX_NAME)
        name = re.match(r"""\s*([^\s<>"'|]+)""", "".join(header))
        if found is None or name is None:
            return False
        session.start(name[1])
        keys = 0
        tag = found if found != middle else (yield from self._next(session))
        while tag == key:
            if not (yield from self._argument(session, name[1], keys)):
                session.end("the call is not complete")
                return True
            keys += 1
            tag = yield from self._next(session)
        session.arguments("}" if keys else "{}")
        session.end(None if tag else "the call is not complete")
        return True

    def _next(self, session: Session) -> Steps[str | None]:
        """The tag that follows; other text before it is passed over."""
        tags = (self.key_begin.strip(), self.end.strip())
        return (yield from session.reader.until(tags, lambda text: None))

    def _argument(self, session: Session, tool: str, n: int) -> Steps[bool]:
        reader = session.reader
        key: list[str] = []
        ends = self.typed or (self.key_end,)
        found = yield from reader.until([_core(end) for end in ends], key.append, MAX_NAME)
        if found is None:
            return False
        name = _attribute_free("".join(key).strip())
        if follow := _rest(self.key_end):  # GLM has the value in a tag of its own
            yield from reader.space()
            yield from reader.one_of((follow,))
        if not name:
            return False
        session.arguments(("{" if n == 0 else ", ") + json.dumps(name, ensure_ascii=False) + ": ")
        text = None if self.typed is None else found == _core(self.typed[0])
        if text is None:
            text = self._is_text(session, tool, name)
        if text:
            return (yield from self._text_value(session))
        pieces: list[str] = []
        complete = yield from reader.until((self.value_end.strip(),), pieces.append)
        session.arguments(as_json(self._unpadded("".join(pieces))))
        return complete is not None

    def _is_text(self, session: Session, tool: str, name: str) -> bool:
        """Whether the schema admits nothing but a text; what it does not say is read as JSON where it is JSON."""
        if tool not in session.tools:
            return False
        known = session.tools[tool]
        return types_of(arguments_schema(known), parameter_schema(known, name)) == {"string"}

    def _text_value(self, session: Session) -> Steps[bool]:
        """A text, which is handed out as it comes, as the inside of a JSON string."""
        reader, pad = session.reader, self.pad
        if pad:
            yield from reader.one_of((pad,))
        session.arguments('"')
        ends = tuple(filter(None, (pad + self.value_end.strip() if pad else "", self.value_end.strip())))
        found = yield from reader.until(ends, lambda text: session.arguments(_inside(text)))
        session.arguments('"')
        return found is not None

    def _unpadded(self, text: str) -> str:
        return text.removeprefix(self.pad).removesuffix(self.pad) if self.pad else text

    def write(self, calls: Sequence[Call]) -> str:
        written = []
        for call in calls:
            text = self.begin + call.name + self.middle
            for key, value in call.arguments.items():
                bare = value if isinstance(value, str) else compact(value)
                end = self.key_end if self.typed is None else self.typed[0 if isinstance(value, str) else 1]
                text += self.key_begin + key + end + bare + self.value_end
            written.append(self._wrapped(text + self.end) if self.each else text + self.end)
        joined = self.joint.join(written)
        return joined if self.each else self._wrapped(joined)

    def _wrapped(self, text: str) -> str:
        return self.section[0] + text + self.section[1]

    def lark(self, tools: Sequence[Tool], most: int, literal: Literals) -> str:
        rules: list[str] = []
        for i, tool in enumerate(tools):
            arguments = value_rules(tool, f"t{i}", self, literal, rules)
            rules.append(f"call{i}: {literal(self.begin + tool.name + self.middle)} {arguments} {literal(self.end)}")
        one = " | ".join(f"call{i}" for i in range(len(tools)))
        opened, end = self.section
        # a lexeme must not begin with another that may stand in its place: the longer one would swallow it
        head = self.joint if not self.each and end.startswith(self.joint) else ""
        opened, closed = literal(opened), f"{literal(head)} {literal(end.removeprefix(head))}"
        if self.each:
            rules.append(f"one: {opened} ({one}) {closed}")
            opened = closed = ""
        else:
            rules.append(f"one: {one}")
        more = f" ({literal(self.joint)} one){{0,{most - 1}}}" if most > 1 else ""
        return "\n".join([f"calls: {opened} one{more} {closed}", *rules])


def as_json(text: str) -> str:
    """A value of a type that the schema leaves open: JSON where it is JSON, else a Python literal, else a text."""
    stripped = text.strip()
    try:
        return compact(read_json(stripped))
    except (ValueError, RecursionError):
        pass_on = {"True": True, "False": False, "None": None}
    if stripped in pass_on:
        return compact(pass_on[stripped])
    literal = _python_literal(stripped)
    return compact(text if literal is None else literal)


def _python_literal(text: str) -> Any:
    """A list or dict as Python prints it, which some templates show their models; None for anything else."""
    import ast

    if text[:1] not in ("[", "{") or len(text) > 1 << 16:
        return None
    try:
        value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return value


def _inside(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _core(tag: str) -> str:
    """The part of a key's end that is looked for: up to a line break, after which the value has its own tag."""
    return tag.strip().partition("\n")[0].partition("><")[0] + (">" if "><" in tag.strip() else "")


def _rest(tag: str) -> str:
    """What follows that part, if it is a tag."""
    return tag.strip()[len(_core(tag)) :].strip()


def _attribute_free(name: str) -> str:
    """`city" type="string` -> `city`: the attributes that follow a name in quotes."""
    return name.partition('"')[0]
