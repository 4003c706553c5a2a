"""llama.cpp's grammar language: which texts a grammar has, by the description in its grammars/README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from ref_engine.errors import GrammarError
from ref_engine.text.grammar import Grammar, compile_gbnf
from ref_engine.text.grammar.gbnf import Alt, Chars, Ref, Repeat, Seq, Text, parse_gbnf
from ref_engine.text.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return load_tokenizer(smollm2)


def accepts(grammar: Grammar, text: str) -> bool:
    state = grammar.constraint()
    for token in grammar.tokenizer.encode(text, add_special=False, parse_special=False):
        if not state.mask()[token]:
            return False
        state.accept(token)
    return state.is_accepting


JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws  # escapes
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""

GRAMMARS = [
    ('root ::= "a" | "bc"', ["a", "bc"], ["b", "abc", ""]),
    ('root ::= "a"? "b"* "c"+', ["c", "abbcc"], ["ab", "aac"]),
    ('root ::= [a-c]{2} [^a-c\\n]{1,} "."{0,2}', ["abx", "abxyz.."], ["ax", "abxa", "ab\n"]),
    ('root ::= "\\x41\\u00e9\\U0001F600\\t\\\\\\"\\[\\]\\-"', ['Aé😀\t\\"[]-'], ["A"]),
    ("root ::= [あ-ん]+ | [a\\-z]", ["こんにちは", "-", "z"], ["カ", "b"]),
    ("root ::= .{3}", ["a\nb", "日本語"], ["ab", "abcd"]),
    ('root ::= ""', [""], ["a"]),
    # rules that name themselves; where a longer lexeme would swallow what the next rule needs
    ('root ::= "(" root ")" | "x"', ["x", "((x))"], ["(x", "()"]),
    ('root ::= "a" root "b" | word "b"\nword ::= [a-z]+', ["xb", "abbb", "axyb"], ["b", "x"]),
    ('root ::= list "."\nlist ::= item | item "," list\nitem ::= "ab" | "a" | "abc"', ["ab,a,abc."], ["ab,.", "b."]),
    (
        'root  ::= (expr "=" term "\\n")+\nexpr  ::= term ([-+*/] term)*\nterm  ::= [0-9]+ | "(" expr ")"',
        ["1+2*(3-4)=5\n", "1=1\n2=2\n"],
        ["1+=2\n", "(1=1\n", "1=1"],
    ),
    (JSON, ['{"a": [1, 2.5, "x\\n\\u00e9", null, {"b": {}}]}', "{}"], ['{"a": }', "[1]", '{"a": 1,}']),
]


@pytest.mark.parametrize(("source", "fitting", "others"), GRAMMARS)
def test_which_texts_a_grammar_has(tokenizer: Tokenizer, source: str, fitting: list[str], others: list[str]) -> None:
    grammar = compile_gbnf(source, tokenizer)
    assert [text for text in fitting if not accepts(grammar, text)] == []
    assert [text for text in others if accepts(grammar, text)] == []


def test_the_tree() -> None:
    rules = parse_gbnf('# c\nroot ::= "a" (b-c |\n  [x-z^])+ # end\nb-c ::=\n  [^"] "\\n"{2,} | .', {})
    assert rules == {
        "root": Seq((Text("a"), Repeat(Alt((Ref("b-c"), Chars(((120, 122), (94, 94))))), 1, None))),
        "b-c": Alt((Seq((Chars(((34, 34),), negated=True), Repeat(Text("\n"), 2, None))), Chars((), negated=True))),
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('x ::= "a"', "no rule 'root'"),
        ("root ::= missing", "rule 'missing' is not defined"),
        ('root ::= "a', "line 1: unexpected end"),
        ('root ::= "a"\nx = "b"', "line 2: expected '::='"),
        ("root ::= *", "line 1: nothing for '\\*' to repeat"),
        ('root ::= ("a"', r"expected '\)'"),
        ('root ::= "a")', "expected the end of the rule"),
        ('root ::= "\\q"', "unknown escape"),
        ('root ::= "\\xZZ"', "hexadecimal"),
        ('root ::= "\\uD800"', "U\\+D800 is no character"),
        ("root ::= [z-a]", "ends before it begins"),
        ("root ::= []", "without characters"),
        ('root ::= "a"{2,1}', "ends before it begins"),
        ('root ::= "a"{3000}', "more than 2000"),
        ('root ::= "a"{x}', "expected a repetition"),
        ("root ::= <no-such-token>", "no token of this vocabulary"),
        ("root ::= <[99999999]>", "outside the vocabulary"),
        ("root ::= !x", "expected a token"),
        ("root ::= " + "(" * 1000 + '"a"' + ")" * 1000, "parentheses in each other"),
        ("\n".join(["root ::= r0", *(f'r{i} ::= r{i + 1} "a"' for i in range(3000)), 'r3000 ::= "b"']), "chains"),
        ("root ::= root", "GBNF grammar"),  # no text fits
        ("#" * (1 << 19), "characters"),
    ],
)
def test_what_is_no_grammar_is_refused_with_the_line(tokenizer: Tokenizer, source: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message) as caught:
        compile_gbnf(source, tokenizer)
    assert "\n" not in str(caught.value)
