"""llama.cpp's grammar language GBNF: its text as a tree.

The language is described in llama.cpp's grammars/README.md; in doubtful cases this does what
`llama_grammar_parser` (src/llama-grammar.cpp) does, but for an empty class `[]`, which is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ref_engine.errors import GrammarError

MAX_CHARS = 1 << 18
MAX_NESTING = 100  # parentheses in each other
MAX_REPEAT = 2000  # llama.cpp's MAX_REPETITION_THRESHOLD; more than this at most counts as no limit

_HEX = {"x": 2, "u": 4, "U": 8}
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")


@dataclass(frozen=True)
class Text:
    """These characters, in this order."""

    text: str


@dataclass(frozen=True)
class Chars:
    """One character that lies in one of the ranges (first, last), or in none of them. `.` is none of nothing."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True)
class Token:
    """One token of the vocabulary, or any other one."""

    id: int
    negated: bool = False


@dataclass(frozen=True)
class Ref:
    name: str


@dataclass(frozen=True)
class Seq:
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Alt:
    options: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """`most` None: without limit."""

    item: Node
    least: int
    most: int | None


Node = Text | Chars | Token | Ref | Seq | Alt | Repeat


def parse_gbnf(source: str, token_to_id: Mapping[str, int]) -> dict[str, Node]:
    """The rules of a grammar by name; `root` is among them, and every rule that one names.

    Raises GrammarError with the line at fault.
    """
    if len(source) > MAX_CHARS:
        raise GrammarError(f"GBNF grammar: more than {MAX_CHARS} characters")
    rules = _Parser(source, token_to_id).rules()
    if "root" not in rules:
        raise GrammarError("GBNF grammar: has no rule 'root'")
    missing = {name for body in rules.values() for name in references(body)} - set(rules)
    if missing:
        raise GrammarError(f"GBNF grammar: rule {min(missing)!r} is not defined")
    return rules


def references(node: Node) -> set[str]:
    """The names of the rules that a tree mentions."""
    match node:
        case Ref(name):
            return {name}
        case Seq(items) | Alt(items):
            return {name for item in items for name in references(item)}
        case Repeat(item, _, _):
            return references(item)
        case _:
            return set()


class _Parser:
    def __init__(self, source: str, token_to_id: Mapping[str, int]) -> None:
        self._source = source
        self._token_to_id = token_to_id
        self._at = 0
        self._nesting = 0

    def rules(self) -> dict[str, Node]:
        rules: dict[str, Node] = {}
        self._skip(lines=True)
        while self._at < len(self._source):
            name = self._name()
            self._skip()
            self._expect("::=")
            self._skip(lines=True)
            rules[name] = self._alternatives(nested=False)
            if self._at < len(self._source) and self._peek() not in "\r\n":
                raise self._error("expected the end of the rule")
            self._skip(lines=True)
        return rules

    def _alternatives(self, nested: bool) -> Node:
        options = [self._sequence(nested)]
        while self._peek() == "|":
            self._at += 1
            self._skip(lines=True)
            options.append(self._sequence(nested))
        return options[0] if len(options) == 1 else Alt(tuple(options))

    def _sequence(self, nested: bool) -> Node:
        items: list[Node] = []
        while (char := self._peek()) and (char in '"[<!(.*+?{' or _NAME.match(char)):
            if char in "*+?{":
                if not items:
                    raise self._error(f"nothing for {char!r} to repeat")
                least, most = self._count()
                items[-1] = Repeat(items[-1], least, most)
            else:
                items.append(self._item(char))
            self._skip(lines=nested)
        return items[0] if len(items) == 1 else Seq(tuple(items))

    def _item(self, char: str) -> Node:
        match char:
            case '"':
                return self._text()
            case "[":
                return self._chars()
            case "<" | "!":
                return self._token()
            case ".":
                self._at += 1
                return Chars((), negated=True)
            case "(":
                return self._group()
            case _:
                return Ref(self._name())

    def _group(self) -> Node:
        if self._nesting == MAX_NESTING:
            raise self._error(f"more than {MAX_NESTING} parentheses in each other")
        self._nesting += 1
        self._at += 1
        self._skip(lines=True)
        node = self._alternatives(nested=True)
        self._expect(")")
        self._nesting -= 1
        return node

    def _text(self) -> Node:
        self._at += 1
        chars: list[str] = []
        while self._peek() != '"':
            chars.append(self._char())
        self._at += 1
        return Text("".join(chars))

    def _chars(self) -> Node:
        self._at += 1
        negated = self._peek() == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while self._peek() != "]":
            first = last = ord(self._char())
            if self._peek() == "-" and self._source[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                last = ord(self._char())
            if last < first:
                raise self._error("a range that ends before it begins")
            ranges.append((first, last))
        if not ranges:
            raise self._error("a class without characters")
        self._at += 1
        return Chars(tuple(ranges), negated)

    def _token(self) -> Node:
        negated = self._peek() == "!"
        self._at += negated
        end = self._source.find(">", self._at)
        text = self._source[self._at : end + 1]
        if end < 0 or not text.startswith("<"):
            raise self._error("expected a token such as <[12]> or <name>")
        if number := re.fullmatch(r"<\[(\d{1,9})\]>", text):
            id = int(number[1])
            if id >= len(self._token_to_id):
                raise self._error(f"token {id} is outside the vocabulary of {len(self._token_to_id)}")
        elif text in self._token_to_id:
            id = self._token_to_id[text]
        else:
            raise self._error(f"{text[:40]!r} is no token of this vocabulary")
        self._at = end + 1
        return Token(id, negated)

    def _count(self) -> tuple[int, int | None]:
        char = self._source[self._at]
        if char != "{":
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        found = re.compile(r"\{\s*(\d{1,9})\s*(,?)\s*(\d{0,9})\s*\}").match(self._source, self._at)
        if found is None or (found[3] and not found[2]):
            raise self._error("expected a repetition such as {2} or {2,5}")
        self._at = found.end()
        least = int(found[1])
        most = int(found[3]) if found[3] else None if found[2] else least
        if least > MAX_REPEAT:
            raise self._error(f"a repetition of more than {MAX_REPEAT}")
        if most is not None and most < least:
            raise self._error("a repetition that ends before it begins")
        return least, None if most is not None and most > MAX_REPEAT else most

    def _char(self) -> str:
        """One character of a string or class, which may be escaped."""
        char = self._peek()
        if not char:
            raise self._error("unexpected end")
        if char != "\\":
            self._at += 1
            return char
        escape = self._source[self._at + 1 : self._at + 2]
        if escape in _HEX:
            digits = self._source[self._at + 2 : self._at + 2 + _HEX[escape]]
            if not re.fullmatch(f"[0-9a-fA-F]{{{_HEX[escape]}}}", digits):
                raise self._error(f"expected {_HEX[escape]} hexadecimal digits")
            code = int(digits, 16)
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise self._error(f"U+{code:04X} is no character")
            self._at += 2 + len(digits)
            return chr(code)
        if escape not in _ESCAPES or not escape:
            raise self._error(f"unknown escape {char + escape!r}")
        self._at += 2
        return _ESCAPES[escape]

    def _name(self) -> str:
        found = _NAME.match(self._source, self._at)
        if found is None:
            raise self._error("expected the name of a rule")
        self._at = found.end()
        return found[0]

    def _peek(self) -> str:
        return self._source[self._at : self._at + 1]

    def _expect(self, text: str) -> None:
        if not self._source.startswith(text, self._at):
            raise self._error(f"expected {text!r}")
        self._at += len(text)

    def _skip(self, lines: bool = False) -> None:
        found = (_SPACE_AND_LINES if lines else _SPACE).match(self._source, self._at)
        assert found is not None  # both patterns match nothing, too
        self._at = found.end()

    def _error(self, what: str) -> GrammarError:
        line = self._source.count("\n", 0, self._at) + 1
        return GrammarError(f"GBNF grammar: line {line}: {what}")
