"""From what a caller has, a schema, an expression or a grammar, to a compiled `Grammar`."""

from __future__ import annotations

import json
import re

from ref_engine.errors import GrammarError
from ref_engine.text.grammar.constraint import Grammar
from ref_engine.text.grammar.gbnf import parse_gbnf
from ref_engine.text.grammar.gbnf_lark import gbnf_to_lark
from ref_engine.text.grammar.lark import MAX_CHARS, check_lark, regex
from ref_engine.text.grammar.schema import schema_text
from ref_engine.text.tokenizer.base import Tokenizer


def compile_json_schema(schema: object, tokenizer: Tokenizer, *, lenient: bool = False) -> Grammar:
    """Texts that are JSON and meet the schema (a mapping, or True for any JSON).

    lenient: keywords that cannot be enforced are ignored; otherwise a GrammarError names them.
    """
    return Grammar(_source("json_schema", schema_text(schema, lenient=lenient)), tokenizer, "JSON schema")


def compile_json(tokenizer: Tokenizer) -> Grammar:
    """Texts that are one JSON object."""
    return compile_json_schema({"type": "object"}, tokenizer)


def compile_regex(pattern: str, tokenizer: Tokenizer) -> Grammar:
    """Texts that a regular expression matches from end to end (Rust's syntax, without look-around).

    `^` at its beginning and `$` at its end are what holds anyway, and may be written.
    """
    if len(pattern) > MAX_CHARS:
        raise GrammarError(f"regular expression: more than {MAX_CHARS} characters")
    if not pattern:
        raise GrammarError("regular expression: is empty")
    body = re.sub(r"(?<!\\)((?:\\\\)*)\$\Z", r"\1", pattern.removeprefix("^"))
    lark = f"start: {regex(body)}" if body else 'start: ""'
    return Grammar(lark_source(lark), tokenizer, "regular expression")


def compile_lark(source: str, tokenizer: Tokenizer) -> Grammar:
    """Texts of a grammar in llguidance's dialect of Lark, from its rule `start`. `%json` and `%regex` may be in it."""
    check_lark(source)
    return Grammar(lark_source(source), tokenizer)


def compile_gbnf(source: str, tokenizer: Tokenizer) -> Grammar:
    """Texts of a grammar in llama.cpp's GBNF, from its rule `root`."""
    lark = gbnf_to_lark(parse_gbnf(source, tokenizer.vocab.token_to_id), tokenizer.n_vocab)
    return Grammar(lark_source(lark), tokenizer, "GBNF grammar")


def lark_source(lark: str) -> str:
    """A grammar of our own making, as `Grammar` takes it."""
    return _source("lark_grammar", json.dumps(lark))


def _source(kind: str, text: str) -> str:
    return f'{{"grammars":[{{"{kind}":{text}}}]}}'
