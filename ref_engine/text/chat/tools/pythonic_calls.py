"""Calls as a list in Python: [get_weather(city="Paris", days=3), ping()]."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ref_engine.errors import GrammarError
from ref_engine.text.chat.tools.parts import Call, Tool
from ref_engine.text.chat.tools.reader import Steps
from ref_engine.text.chat.tools.schemas import arguments_schema, parameter_schema, resolved
from ref_engine.text.chat.tools.session import Session, compact, read_json
from ref_engine.text.grammar.lark import Literals
from ref_engine.text.grammar.schema import schema_text

MAX_CHARS = 1 << 20
_CALL = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*\(")
_KEY = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*")
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class PythonicCalls:
    """begin + list + end. Values are Python or JSON, whichever they can be read as."""

    begin: str = ""
    end: str = ""
    bare: bool = False

    @property
    def triggers(self) -> Sequence[str]:
        return (self.begin,) if self.begin else ()

    @property
    def dropped(self) -> Sequence[str]:
        return ()

    def read(self, trigger: str, session: Session) -> Steps[bool]:
        """The list is read whole: no call of it is certain before its end."""
        reader = session.reader
        yield from reader.space()
        if (yield from reader.peek()) != "[" or (not trigger and not (yield from self._known(session))):
            return False
        pieces: list[str] = []
        if not (yield from reader.balanced(pieces.append)):
            return False
        calls = parse_calls("".join(pieces))
        if not calls or (not trigger and any(call.name not in session.tools for call in calls)):
            return False
        for call in calls:
            session.whole(call.name, compact(dict(call.arguments)))
        if self.end:
            yield from reader.space()
            yield from reader.one_of((self.end,))
        return True

    def _known(self, session: Session) -> Steps[bool]:
        """Whether a bare list begins with one of the tools: a list of anything else is text, at once."""
        longest = max(map(len, session.tools), default=0)
        head = (yield from session.reader.peek(longest + 2))[1:].lstrip()
        return any(head.startswith((name + "(")[: len(head)]) for name in session.tools if head)

    def write(self, calls: Sequence[Call]) -> str:
        written = [
            f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})" for call in calls
        ]
        return f"{self.begin}[{', '.join(written)}]{self.end}"

    def lark(self, tools: Sequence[Tool], most: int, literal: Literals) -> str:
        """Values are JSON here: a schema is a grammar of JSON, and they are read as such."""
        rules = [f"one: {' | '.join(f'call{i}' for i in range(len(tools)))}"]
        for i, tool in enumerate(tools):
            rules.append(f'call{i}: {literal(tool.name + "(")} {self._arguments(tool, f"v{i}", rules)} ")"')
        more = f' (", " one){{0,{most - 1}}}' if most > 1 else ""
        return "\n".join([f"calls: {literal(self.begin + '[')} one{more} {literal(']' + self.end)}", *rules])

    def _arguments(self, tool: Tool, prefix: str, rules: list[str]) -> str:
        root = arguments_schema(tool)
        schema = resolved(root, root)
        properties, required = schema.get("properties"), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise GrammarError(f"tool {tool.name!r}: its parameters are no object with properties")
        definitions: dict[str, Any] = {key: root[key] for key in ("$defs", "definitions") if key in root}
        # those that must be there come first, so that a comma stands before each but the first
        names = [name for name in required if isinstance(name, str)]
        names += [name for name in properties if name not in names]
        pieces: list[str] = []
        for i, name in enumerate(names):
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise GrammarError(f"tool {tool.name!r}: parameter {name!r} is no name in Python")
            rules.append(
                f"{prefix}_{i}: %json {schema_text({**parameter_schema(tool, name), **definitions}, lenient=True)}"
            )
            pieces.append(f'"{name}=" {prefix}_{i}')
        return self._listed(pieces, sum(name in names for name in required), prefix, rules)

    def _listed(self, pieces: list[str], n_required: int, prefix: str, rules: list[str]) -> str:
        """The pieces with commas between; those after the required ones may be left out."""
        if n_required:
            return " ".join([*_joined(pieces[:n_required]), *(f'(", " {piece})?' for piece in pieces[n_required:])])
        rules.append(f'{prefix}_none: ""')
        options = [" ".join([pieces[i], *(f'(", " {p})?' for p in pieces[i + 1 :])]) for i in range(len(pieces))]
        return f"({' | '.join([*options, f'{prefix}_none'])})"


def _joined(pieces: list[str]) -> list[str]:
    return [pieces[0], *(f'", " {piece}' for piece in pieces[1:])]


def parse_calls(text: str) -> list[Call] | None:
    """The calls of `[a(x=1), b()]`, or None for anything else."""
    if len(text) > MAX_CHARS or not text.startswith("[") or not text.endswith("]"):
        return None
    calls: list[Call] = []
    at, end = 1, len(text) - 1
    while text[at:end].strip():
        head = _CALL.match(text, at, end)
        if head is None:
            return None
        at = head.end()
        arguments: dict[str, Any] = {}
        while not text[at:end].lstrip().startswith(")"):
            key = _KEY.match(text, at, end)
            stop = None if key is None else _value_end(text, key.end(), end)
            if key is None or stop is None:
                return None
            try:
                arguments[key[1]] = value_of(text[key.end() : stop])
            except ValueError:
                return None
            at = stop + (text[stop] == ",")
        at = text.index(")", at) + 1
        calls.append(Call(head[1], arguments))
        rest = text[at:end].lstrip()
        if rest and not rest.startswith(","):
            return None
        at = end - len(rest) + 1 if rest else end
    return calls


def _value_end(text: str, at: int, end: int) -> int | None:
    """Where a value ends: at a comma or closing bracket that is not inside it."""
    depth, quoted = 0, ""
    while at < end:
        char = text[at]
        if quoted:
            if char == "\\":
                at += 1
            elif char == quoted:
                quoted = ""
        elif char in "\"'":
            quoted = char
        elif char in "([{":
            depth += 1
        elif char in ")]}" and depth:
            depth -= 1
        elif char in ")," and not depth:
            return at
        at += 1
    return None


def value_of(text: str) -> Any:
    """A value written in JSON or Python. Raises ValueError for what is neither, or no JSON value."""
    text = text.strip()
    if text in _WORDS:
        return _WORDS[text]
    try:
        return read_json(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
            json.dumps(value, allow_nan=False)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise ValueError(f"no value: {text[:60]}") from error
        return value
