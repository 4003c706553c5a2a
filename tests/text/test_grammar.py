"""Grammars over real vocabularies: what they let through, token by token, and what they refuse."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ref_engine.errors import GrammarError
from ref_engine.generate import Continuation, Event, new_sampler
from ref_engine.sample import GREEDY
from ref_engine.text.grammar import (
    Grammar,
    compile_gbnf,
    compile_json,
    compile_json_schema,
    compile_lark,
    compile_regex,
)
from ref_engine.text.tokenizer import Tokenizer, load_tokenizer

CACHE = Path(os.environ.get("REF_ENGINE_CACHE", Path.home() / ".cache" / "ref-engine"))
VOCABS = ["gpt-2", "llama-bpe", "llama-spm", "phi-3"]  # byte-level BPE twice, SentencePiece with byte tokens twice


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return load_tokenizer(smollm2)


@pytest.fixture(scope="module", params=VOCABS)
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return load_tokenizer(vocab(request.param))


def vocab(name: str) -> Path:
    path = CACHE / "vocabs" / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        pytest.skip(f"{path} is not there: python -m ref_engine.library.assets fetches it")
    return path


def accepts(grammar: Grammar, text: str) -> bool:
    """Whether every token of a text may come, and it may end after them."""
    state = grammar.constraint()
    for token in grammar.tokenizer.encode_fragment(text, after_special=False):
        if not state.mask()[token]:
            return False
        state.accept(token)
    return state.is_accepting


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"name":"x","age":1}', True),
        ('{"name": "x", "age": 1}', True),
        ('{\n  "name": "Zoë ☃ \\n \\"q\\"",\n  "age": 30\n}', True),
        ('{"name": "x"}', False),  # age is missing
        ('{"name": "x", "age": -1}', False),
        ('{"name": "x", "age": 1.5}', False),
        ('{"name": "x", "age": 1, "more": 2}', False),  # only what the schema names
        ('{"name": "x", "age": 1', False),
        ('{"name": "x"  , "age": 1}', False),  # white space has no end in sight where it is free
        ('{"name": "a\nb", "age": 1}', False),  # no raw line break in a string
        ("Sure! {}", False),
    ],
)
def test_a_schema_over_every_kind_of_vocabulary(any_tokenizer: Tokenizer, text: str, fits: bool) -> None:
    assert accepts(compile_json_schema(PERSON, any_tokenizer), text) is fits


def test_every_spelling_of_a_free_text_is_allowed(any_tokenizer: Tokenizer) -> None:
    """The mask knows bytes, not words: any tokens that spell the text fit, those of single bytes too."""
    ids = range(any_tokenizer.n_vocab)
    single = {any_tokenizer.token_bytes(id): id for id in ids if len(any_tokenizer.token_bytes(id)) == 1}
    state = compile_regex("[a-zé ]{3,40}", any_tokenizer).constraint()
    for byte in "the é thé".encode():
        token = single[bytes([byte])]
        assert state.mask()[token]
        state.accept(token)
    assert state.is_accepting


@pytest.mark.parametrize("name", [*VOCABS, "bert-bge", "nomic-bert-moe"])
def test_a_text_without_a_choice(name: str) -> None:
    """Whatever allowed token is taken, the text comes out: WordPiece and Unigram, which change what they read, too."""
    tokenizer = load_tokenizer(vocab(name))
    state = compile_regex(" hello world", tokenizer).constraint()
    spelt = b""
    while not state.is_complete:
        token = int(np.flatnonzero(state.mask())[-1])
        spelt += tokenizer.token_bytes(token)
        state.accept(token)
    assert spelt == b" hello world"


def test_a_text_that_a_vocabulary_cannot_spell() -> None:
    with pytest.raises(GrammarError, match="no token"):  # this one has lower-case letters only
        compile_regex("HELLO", load_tokenizer(vocab("bert-bge")))


def test_a_large_sentencepiece_vocabulary(gemma3: Path) -> None:
    grammar = compile_json_schema(PERSON, load_tokenizer(gemma3))
    assert accepts(grammar, '{"name": "Привет, 日本", "age": 12}')
    assert not accepts(grammar, '{"name": 3, "age": 12}')


def test_the_end_is_allowed_where_the_text_may_end_and_only_there(tokenizer: Tokenizer) -> None:
    state = compile_regex("[0-9]{1,3}", tokenizer).constraint()
    ends = sorted(tokenizer.vocab.eog_ids)
    assert len(ends) == 3
    assert not state.mask()[ends].any() and not state.is_accepting
    for digit in "123":
        state.accept(*tokenizer.encode(digit, add_special=False))
        assert state.is_accepting
        assert state.mask()[ends].all()
    assert state.is_complete  # a fourth digit does not fit
    assert set(np.flatnonzero(state.mask())) == set(ends)


def test_control_tokens_are_no_text(tokenizer: Tokenizer) -> None:
    grammar = compile_lark('start: "<|im_start|>" /[a-z]+/', tokenizer)
    [special] = tokenizer.encode("<|im_start|>", add_special=False)
    state = grammar.constraint()
    assert not state.mask()[special]
    assert accepts(grammar, "<|im_start|>abc")
    with pytest.raises(GrammarError, match=r"token 1 .*<\|im_start\|>.* is not allowed here"):
        state.accept(special)
    named = compile_lark("start: <|im_start|> /[a-z]+/", tokenizer).constraint()
    assert np.flatnonzero(named.mask()).tolist() == [special]


def test_texts_do_not_share_a_state(tokenizer: Tokenizer) -> None:
    grammar = compile_regex("ab|cd", tokenizer)
    one, two = grammar.constraint(), grammar.constraint()
    a, c = (tokenizer.encode(x, add_special=False)[0] for x in "ac")
    one.accept(a)
    assert not one.mask()[c] and two.mask()[c]
    copy = one.copy()
    copy.accept(*tokenizer.encode("b", add_special=False))
    assert copy.is_complete and not one.is_accepting


def test_any_json_object(tokenizer: Tokenizer) -> None:
    grammar = compile_json(tokenizer)
    assert accepts(grammar, '{"a": [1, -2.5e3, true, null, {"b": {}}]}')
    assert not accepts(grammar, "[1]")


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (r"\d{3}-\d{4}", "555-0199", True),
        (r"^\d{3}-\d{4}$", "555-0199", True),
        (r"^\d{3}-\d{4}$", "555-019", False),
        (r"yes|no", "no", True),
        (r"a/b", "a/b", True),
        (r"\$\$", "$$", True),
        (r"[^a]\$", "b$", True),
        ("(.|\n)*end", "x\nend", True),
    ],
)
def test_regular_expressions(tokenizer: Tokenizer, pattern: str, text: str, fits: bool) -> None:
    assert accepts(compile_regex(pattern, tokenizer), text) is fits


# Facts of JSON Schema 2020-12, by hand: texts that meet a schema, and texts that do not.
SCHEMAS = [
    ({"enum": ["a", 1, None]}, ['"a"', "1", "null"], ['"b"', "2"]),
    ({"const": {"k": [1]}}, ['{"k":[1]}'], ["{}"]),
    ({"type": ["string", "null"]}, ['"x"', "null"], ["1"]),
    (
        {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        ["[1]", "[1,2]"],
        ["[]", "[1,2,3]"],
    ),
    ({"type": "string", "pattern": "^[a-z]{2}$"}, ['"ab"'], ['"abc"', '"A"']),
    ({"type": "string", "format": "date"}, ['"2024-02-28"'], ['"29.2.2024"', '"2024-02-30"']),
    ({"type": "number", "exclusiveMaximum": 1, "minimum": 0}, ["0", "0.5"], ["1", "-1"]),
    ({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, ["3", "true"], ["null"]),
    (
        {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}},
        ["{}", '{"n": {"n": {}}}'],
        ['{"m": {}}'],
    ),
    (
        {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"required": ["b"]}]},
        ['{"a": 1, "b": 2}'],
        ['{"a": 1}'],
    ),
    (
        {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "integer"}},
        ['{"x": 1}'],
        ['{"x": ""}'],
    ),
    (True, ["[1]", "{}"], ["x"]),
]


@pytest.mark.parametrize(("schema", "fitting", "others"), SCHEMAS)
def test_schemas(tokenizer: Tokenizer, schema: object, fitting: list[str], others: list[str]) -> None:
    grammar = compile_json_schema(schema, tokenizer)
    assert [text for text in fitting if not accepts(grammar, text)] == []
    assert [text for text in others if accepts(grammar, text)] == []


def chain(n: int) -> dict[str, object]:
    defs = {f"d{i}": {"type": "object", "properties": {"x": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(n)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{n}": {"type": "integer"}}}


def nested(n: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "integer"}
    for _ in range(n):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "nonsense"}, "nonsense"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "minimum"),
        ({"$ref": "#/$defs/missing"}, "missing"),
        ({"$ref": "https://example.com/schema"}, "example.com"),
        ({"type": "string", "format": "no-such"}, "no-such"),
        ({"type": "string", "pattern": "("}, "regex"),
        ({"enum": []}, "empty"),
        ({"minimum": float("nan")}, "JSON"),
        ({"x": {1}}, "JSON schema"),
        ([], "is an object"),
        (False, "is an object"),
        (chain(5000), "deeper than"),  # such a chain would end the process
        (nested(5000), "nested too deep"),
        ({"description": "x" * (1 << 20)}, "characters"),
    ],
)
def test_a_schema_that_cannot_be_held_is_refused_by_name(tokenizer: Tokenizer, schema: object, message: str) -> None:
    with pytest.raises(GrammarError, match=message) as caught:
        compile_json_schema(schema, tokenizer)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_arrays_in_arrays(tokenizer: Tokenizer) -> None:
    assert accepts(compile_json_schema(nested(60), tokenizer), "[" * 60 + "1" + "]" * 60)


def test_a_wide_schema_is_no_deep_one(tokenizer: Tokenizer) -> None:
    defs = {f"d{i}": {"type": "object", "properties": {"x": {"$ref": "#/$defs/leaf"}}} for i in range(500)}
    schema = {"anyOf": [{"$ref": f"#/$defs/d{i}"} for i in range(500)], "$defs": {**defs, "leaf": {"type": "integer"}}}
    assert accepts(compile_json_schema(schema, tokenizer), '{"x": 4}')


def test_lenient_ignores_what_cannot_be_held(tokenizer: Tokenizer) -> None:
    grammar = compile_json_schema(
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, tokenizer, lenient=True
    )
    assert accepts(grammar, "[1, 1]")
    assert not accepts(grammar, '["a"]')


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("start: x", "x"),
        ("start: ((", "grammar"),
        ("x: /a/", "start"),
        ("start: x\nx: x", "grammar"),  # no text fits
        ("start: " + "(" * 10_000 + '"a"' + ")" * 10_000, "nested"),
        ("\n".join(["start: r0", *(f'r{i}: r{i + 1} "a"' for i in range(3000)), 'r3000: "b"']), "chains"),
        ("start: a0\n" + "\n".join(f'a{i}: "x"' for i in range(6000)), "rules"),
        ("x" * (1 << 19), "characters"),
    ],
)
def test_a_lark_grammar_that_is_none(tokenizer: Tokenizer, source: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message) as caught:
        compile_lark(source, tokenizer)
    assert "\n" not in str(caught.value)


def test_a_regular_expression_that_is_none(tokenizer: Tokenizer) -> None:
    for pattern in ("(", "", "(?=a)b", "a{2,1}", "(" * 100_000):
        with pytest.raises(GrammarError, match="regular expression"):
            compile_regex(pattern, tokenizer)


def test_gbnf_tokens(tokenizer: Tokenizer) -> None:
    grammar = compile_gbnf('root ::= <|im_start|> !<[2]> "x"', tokenizer)
    state = grammar.constraint()
    assert np.flatnonzero(state.mask()).tolist() == [tokenizer.vocab.token_to_id["<|im_start|>"]]
    state.accept(1)
    mask = state.mask()
    assert not mask[2] and mask.sum() == tokenizer.n_vocab - 1


def test_a_text_is_completed_before_its_tokens_run_out(tokenizer: Tokenizer) -> None:
    """A model that only ever wants to say one word: the text is closed in time, its schema met, and says it was cut."""
    schema = {
        "type": "object",
        "properties": {"story": {"type": "string"}, "end": {"enum": ["happy", "sad"]}, "n": {"type": "integer"}},
        "required": ["story", "end", "n"],
    }
    logits = np.zeros(tokenizer.n_vocab, np.float32)
    logits[tokenizer.encode(" la", add_special=False)] = 50
    for limit, n_ctx in ((30, 500), (100, 500), (None, 30), (None, 100), (100, 60)):
        constraint = compile_json_schema(schema, tokenizer).constraint()
        text = Continuation(tokenizer, new_sampler(tokenizer, GREEDY), max_tokens=limit, constraint=constraint)
        events: list[Event] = []
        while not events or events[-1].finish_reason is None:
            events.append(text.next(logits, room=n_ctx - 1 - len(events)))
        max_tokens = min(limit or n_ctx, n_ctx)
        answer = json.loads("".join(event.text for event in events))
        assert answer["story"].count(" la") >= max_tokens // 5
        assert answer["end"] in ("happy", "sad") and isinstance(answer["n"], int)
        assert max_tokens - 10 <= len(events) <= max_tokens
        assert events[-1].finish_reason == "length"


def test_a_text_that_goes_round_in_circles_is_completed(tokenizer: Tokenizer) -> None:
    """No limit was asked for, and the model says the same three words for ever; one that counts is left alone."""
    grammar = compile_json_schema({"type": "array", "items": {"type": "string", "maxLength": 200}}, tokenizer)

    def said(pieces: Iterator[str]) -> tuple[list[str], str | None]:
        sampler = new_sampler(tokenizer, GREEDY)
        text = Continuation(tokenizer, sampler, constraint=grammar.constraint())
        answer, reason = "", None
        while reason is None:
            logits = np.zeros(tokenizer.n_vocab, np.float32)
            (token,) = tokenizer.encode(next(pieces), add_special=False)
            logits[token] = 50
            event = text.next(logits, room=5000)
            answer, reason = answer + event.text, event.finish_reason
        return json.loads(answer), reason

    words, reason = said(itertools.chain(["["], itertools.cycle(['"', "one", " two", " three", '",'])))
    assert set(words[:-1]) == {"one two three"} and reason == "length" and 50 <= len(words) <= 60
    counted = [f"{i // 26}{chr(97 + i % 26)}" for i in range(250)]
    pieces = itertools.chain(["["], *([*('"', *word, '",')] for word in counted), ['"', '"', "]"])
    assert said(pieces) == ([*counted, ""], "stop")


def test_too_few_tokens_are_too_few(tokenizer: Tokenizer) -> None:
    constraint = compile_regex("[a-z]{50} [0-9]{50}", tokenizer).constraint()
    assert constraint.way_out(5) is None
    text = Continuation(tokenizer, new_sampler(tokenizer, GREEDY), max_tokens=3, constraint=constraint)
    logits = np.zeros(tokenizer.n_vocab, np.float32)
    assert [text.next(logits, room=100).finish_reason for _ in range(3)] == [None, None, "length"]
