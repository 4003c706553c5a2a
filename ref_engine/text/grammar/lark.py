"""Pieces of grammars in llguidance's dialect of Lark, and what is checked of one that comes from outside.

The dialect: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
import re

from ref_engine.errors import GrammarError
from ref_engine.text.grammar.depth import depth
from ref_engine.text.tokenizer.special import CONTROL, UNKNOWN
from ref_engine.text.tokenizer.vocab import Vocab

MAX_CHARS = 1 << 18
MAX_RULES = 5000
MAX_DEPTH = 100  # rules that name each other in a chain

_DEFINITION = re.compile(r"^[ \t]*[?!]?([A-Za-z_]\w*)(?:\.\d+)?[ \t]*(?:\[[^\n]*?\])?[ \t]*:", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_]\w*")


def literal(text: str, vocab: Vocab) -> str:
    """A sequence that matches `text`. Where a control token of the vocabulary stands in it, that token is meant.

    Other tokens of the text may be any that spell it.
    """
    special = sorted(
        (token for token in _special_in(text, vocab)),
        key=lambda token: -len(token),
    )
    parts = re.split("(" + "|".join(map(re.escape, special)) + ")", text) if special else [text]
    pieces = [f"<[{vocab.token_to_id[part]}]>" if part in special else quoted(part) for part in parts if part]
    return " ".join(pieces) or '""'


def _special_in(text: str, vocab: Vocab) -> set[str]:
    """Texts of control tokens that occur in a text."""
    starts = range(len(text))
    found = set()
    for start in starts:
        if text[start] not in "<[" and text[start] != "｜":
            continue
        for end in range(start + 2, min(len(text), start + 64) + 1):
            id = vocab.token_to_id.get(text[start:end])
            if id is not None and vocab.attrs[id] & (CONTROL | UNKNOWN):
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
