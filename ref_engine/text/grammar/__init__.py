"""Grammars that an answer must obey: what may come next, token by token.

schema.py      JSON schemas                  gbnf.py, gbnf_lark.py   llama.cpp's grammar language
lark.py        pieces of Lark grammars       depth.py                how deep a grammar's rules refer to each other
vocabulary.py  the tokens as bytes           constraint.py           a compiled grammar, and its state in one text
closing.py     the way to a text's end       triggered.py            a grammar that waits until something begins

The work is done by llguidance (https://github.com/guidance-ai/llguidance): Earley's parser over a lexer of derivatives,
walked along a trie of the token bytes.

    grammar = compile_json_schema({"type": "object", "properties": {"n": {"type": "integer"}}}, tokenizer)
    for event in generate(model, ids, constraint=grammar.constraint()): ...
"""

from ref_engine.text.grammar.compile import (
    compile_gbnf,
    compile_json,
    compile_json_schema,
    compile_lark,
    compile_regex,
)
from ref_engine.text.grammar.constraint import Grammar, GrammarConstraint

__all__ = [
    "Grammar",
    "GrammarConstraint",
    "compile_gbnf",
    "compile_json",
    "compile_json_schema",
    "compile_lark",
    "compile_regex",
]
