"""Pieces of grammars in llguidance's dialect of Lark, and what is checked of one that comes from outside.

The dialect: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
import re

from ref_engine.errors import GrammarError
from ref_engine.text.grammar.depth import depth
from ref_engine.text.tokenizer.special import CONTROL, UNKNOWN, USER_DEFINED
from ref_engine.text.tokenizer.vocab import Vocab

MAX_CHARS = 1 << 18
MAX_RULES = 5000
MAX_DEPTH = 100  # rules that name each other in a chain

_DEFINITION = re.compile(r"^[ \t]*[?!]?([A-Za-z_]\w*)(?:\.\d+)?[ \t]*(?:\[[^\n]*?\])?[ \t]*:", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_]\w*")


class Literals:
    """Spells fixed texts of a grammar over one vocabulary. Texts of its control tokens, and of other tokens that were
    added to it by name, stand for those tokens; the rest may be any tokens that spell it."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab

    def __call__(self, text: str) -> str:
        """A sequence that matches the text."""
        pieces = [f"<[{self._vocab.token_to_id[piece]}]>" if tag else quoted(piece) for piece, tag in self.split(text)]
        return " ".join(pieces) or '""'

    def before_control(self, text: str) -> tuple[str, str]:
        """The text up to its first control token, which no bytes can spell, and the rest."""
        at = 0
        for piece, tag in self.split(text):
            if tag and self._vocab.attrs[self._vocab.token_to_id[piece]] & (CONTROL | UNKNOWN):
                break
            at += len(piece)
        return text[:at], text[at:]

    def split(self, text: str) -> list[tuple[str, bool]]:
        """The text in pieces, and whether each is the name of a token."""
        names = sorted(self._names(text), key=lambda name: -len(name))
        pieces = re.split("(" + "|".join(map(re.escape, names)) + ")", text) if names else [text]
        return [(piece, piece in names) for piece in pieces if piece]

    def _names(self, text: str) -> set[str]:
        found = set()
        for start, char in enumerate(text):
            if char in "<[｜":
                for end in range(start + 2, min(len(text), start + 64) + 1):
                    id = self._vocab.token_to_id.get(text[start:end])
                    if id is not None and self._vocab.attrs[id] & (CONTROL | UNKNOWN | USER_DEFINED):
                        found.add(text[start:end])
        return found


def quoted(text: str) -> str:
    """A string of the grammar."""
    return json.dumps(text, ensure_ascii=False)


def regex(pattern: str) -> str:
    """A regular expression of the grammar; `pattern` is in the syntax of Rust's regex crate."""
    return "/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", pattern).replace("\n", "\\n") + "/"


def check_lark(source: str) -> None:
    """Raises GrammarError for a grammar from outside that is too large, or whose rules go too deep."""
    if len(source) > MAX_CHARS:
        raise GrammarError(f"grammar: more than {MAX_CHARS} characters")
    marks = list(_DEFINITION.finditer(source))
    if len(marks) > MAX_RULES:
        raise GrammarError(f"grammar: more than {MAX_RULES} rules")
    names = {mark[1] for mark in marks}
    edges: dict[str, set[str]] = {name: set() for name in names}
    for i, mark in enumerate(marks):
        end = marks[i + 1].start() if i + 1 < len(marks) else len(source)
        edges[mark[1]] |= names.intersection(_NAME.findall(source, mark.end(), end))
    check_rules(edges)


def check_rules(edges: dict[str, set[str]]) -> None:
    """Raises GrammarError where rules name each other in too long a chain, wherever one begins to read."""
    everything = edges | {"": set(edges)}
    if depth({"": 0}, everything, "") > MAX_DEPTH:
        raise GrammarError(f"grammar: rules that name each other in chains of more than {MAX_DEPTH}")
