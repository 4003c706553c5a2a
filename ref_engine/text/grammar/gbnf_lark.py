"""A GBNF grammar in llguidance's dialect of Lark, with exactly the same texts.

GBNF reads characters; llguidance reads lexemes, and takes the longest that fits before it asks the parser. So a rule
that nothing recursive stands in becomes one regular expression, and the others fall into lexemes of one character each,
where longest means nothing. A grammar without recursion thus becomes a single lexeme.
"""

from __future__ import annotations

from collections.abc import Mapping

from ref_engine.text.grammar.gbnf import Alt, Chars, Node, Ref, Repeat, Seq, Text, Token, references
from ref_engine.text.grammar.lark import check_rules, quoted

MAX_REGEX = 1 << 16  # characters of one expression; a larger rule stays a rule


def gbnf_to_lark(rules: Mapping[str, Node], n_vocab: int) -> str:
    """The grammar's source. Raises GrammarError where its rules go too deep."""
    check_rules({name: references(body) for name, body in rules.items()})
    writer = _Writer(rules, n_vocab)
    if (whole := writer.regex_of("root")) is not None:
        return f"start: /{whole}/" if whole else 'start: ""'
    bodies = [f"{writer.names[name]}: {writer.rule(body)}" for name, body in rules.items()]
    return "\n".join([f"start: {writer.names['root']}", *bodies])


class _Writer:
    def __init__(self, rules: Mapping[str, Node], n_vocab: int) -> None:
        self._rules = rules
        self._n_vocab = n_vocab
        self._regexes: dict[str, str | None] = {}  # None: not regular, too large, or still being found out
        self.names = {name: f"r{i}" for i, name in enumerate(rules)}

    def regex_of(self, name: str) -> str | None:
        """The rule as a regular expression, or None where it is not one."""
        if name not in self._regexes:
            self._regexes[name] = None  # a rule that is reached again from itself is recursive
            found = self.regex(self._rules[name])
            self._regexes[name] = found if found is not None and len(found) <= MAX_REGEX else None
        return self._regexes[name]

    def regex(self, node: Node) -> str | None:
        match node:
            case Text(text):
                return "".join(_escaped(ord(char)) for char in text)
            case Chars():
                return _class(node)
            case Ref(name):
                return self.regex_of(name)
            case Seq(items):
                parts = [self.regex(item) for item in items]
                return None if None in parts else "".join(f"(?:{part})" for part in parts)
            case Alt(options):
                parts = [self.regex(option) for option in options]
                return None if None in parts else "|".join(f"(?:{part})" for part in parts)
            case Repeat(item, least, most):
                part = self.regex(item)
                return None if part is None else f"(?:{part}){{{least},{'' if most is None else most}}}"
            case _:
                return None  # a token is no text

    def rule(self, node: Node) -> str:
        """The body of a rule, of one-character lexemes."""
        match node:
            case Text(text):
                return " ".join(map(quoted, text)) or '""'
            case Chars():
                return f"/{_class(node)}/"
            case Token(id, negated):
                return self._token(id, negated)
            case Ref(name):
                return self.names[name]
            case Seq(items):
                return " ".join(self._inner(item) for item in items) or '""'
            case Alt(options):
                return " | ".join(self._inner(option) for option in options)
            case Repeat(item, least, most):
                return f"({self.rule(item)}){_count(least, most)}"

    def _inner(self, node: Node) -> str:
        text = self.rule(node)
        return f"({text})" if isinstance(node, Alt | Seq) else text

    def _token(self, id: int, negated: bool) -> str:
        if not negated:
            return f"<[{id}]>"
        ranges = [(0, id - 1), (id + 1, self._n_vocab - 1)]
        return "<[" + ",".join(f"{a}-{b}" for a, b in ranges if a <= b) + "]>"


def _count(least: int, most: int | None) -> str:
    if most is None:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return "?" if (least, most) == (0, 1) else f"{{{least},{most}}}"


def _class(chars: Chars) -> str:
    if not chars.ranges:
        return r"[\s\S]"  # any character, line breaks too
    inside = "".join(_escaped(a) if a == b else f"{_escaped(a)}-{_escaped(b)}" for a, b in chars.ranges)
    return f"[{'^' if chars.negated else ''}{inside}]"


def _escaped(code: int) -> str:
    char = chr(code)
    return char if code < 128 and char.isalnum() else f"\\u{{{code:X}}}"
