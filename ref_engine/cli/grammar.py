"""--json-schema and --grammar: what an answer must obey."""

from __future__ import annotations

import json
from typing import TextIO

from ref_engine.errors import GrammarError
from ref_engine.text.grammar import Grammar, compile_gbnf, compile_json_schema, compile_lark
from ref_engine.text.tokenizer import Tokenizer


def read_grammar(json_schema: TextIO | None, grammar: TextIO | None, tokenizer: Tokenizer) -> Grammar | None:
    """The compiled grammar of one of the two files, or None. Raises GrammarError, also for a file that is no text."""
    file = json_schema if json_schema is not None else grammar
    if file is None:
        return None
    try:
        text = file.read()
        if json_schema is not None:
            return compile_json_schema(json.loads(text), tokenizer)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is one
        raise GrammarError(f"{file.name}: {error}") from error
    return compile_lark(text, tokenizer) if file.name.endswith(".lark") else compile_gbnf(text, tokenizer)
