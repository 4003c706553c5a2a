"""A forced call, in every format: whatever allowed tokens a model takes, the call that is read obeys its schema."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import numpy as np
import pytest
from tool_answers import PING, WEATHER, Tool, read, schema

from ref_engine.errors import GrammarError
from ref_engine.text.chat.tools import Call, ToolFormat, choose_format
from ref_engine.text.chat.tools.formats import CALLS
from ref_engine.text.chat.tools.json_calls import JsonCalls
from ref_engine.text.grammar import Grammar
from ref_engine.text.tokenizer import Tokenizer, load_tokenizer

SYNTAXES = {name: ToolFormat(name, syntax) for name, _, syntax in CALLS}
FORMATS = sorted(SYNTAXES)

CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
WORD = {"type": "string", "pattern": "^[a-z]{1,8}$"}
BOOKING = Tool(
    "book-table",
    schema(
        ["who", "day", "seats"],
        who={"type": "string", "minLength": 2, "maxLength": 12},
        day={"type": "string", "format": "date"},
        seats={"type": "integer", "minimum": 1, "maximum": 12},
        style={"enum": ["quiet", 'a "b"', "naïve </"]},
        outside={"type": "boolean"},
        guests={"type": "array", "items": WORD, "maxItems": 3},
        address={**schema(["street"], street=WORD), "additionalProperties": False},
        note={"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0, "maximum": 9}]},
        code=WORD,
    ),
)
REPEATED = Tool(
    "tree",
    {
        "type": "object",
        "properties": {"root": {"$ref": "#/$defs/node"}, "unit": {"$ref": "#/$defs/unit"}},
        "required": ["root", "unit"],
        "$defs": {
            "unit": {"type": "string", "enum": ["cm", "in"]},
            "node": {
                "type": "object",
                "properties": {"v": {"type": "boolean"}, "next": {"$ref": "#/$defs/node"}},
                "required": ["v"],
            },
        },
    },
)


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return load_tokenizer(smollm2)


def wander(grammar: Grammar, seed: int) -> str:
    """A text of the grammar: any allowed token at every step, an end wherever there can be one after 200 tokens."""
    random = np.random.default_rng(seed)
    tokenizer = grammar.tokenizer
    ends = sorted(tokenizer.vocab.eog_ids)
    lengths = np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.n_vocab)])
    state, text = grammar.constraint(), b""
    for step in range(3000):
        if state.is_complete or (state.is_accepting and random.random() < 0.5):
            return text.decode()
        mask = state.mask().copy()
        mask[ends] = False
        allowed = np.flatnonzero(mask)
        if step > 200:  # short ones, so that it comes to an end
            allowed = allowed[lengths[allowed] <= lengths[allowed].min()]
        token = int(random.choice(allowed))
        text += tokenizer.token_bytes(token)
        state.accept(token)
    raise AssertionError(f"no end: {text[-200:]!r}")


def accepts(grammar: Grammar, text: str) -> bool:
    state = grammar.constraint()
    for token in grammar.tokenizer.encode(text, add_special=False, parse_special=False):
        if not state.mask()[token]:
            return False
        state.accept(token)
    return state.is_accepting


@pytest.mark.parametrize("name", FORMATS)
def test_any_way_through_the_grammar_is_a_good_call(name: str, tokenizer: Tokenizer) -> None:
    format, prompt = SYNTAXES[name], "<|start|>assistant" if name == "harmony" else ">>>"
    tools = (BOOKING, REPEATED, PING)
    for tool, seeds in ((BOOKING, 2), (REPEATED, 1)):
        grammar = format.call_grammar(tools, tokenizer, name=tool.name, prompt=prompt, may_think=False)
        for seed in range(seeds):
            text = wander(grammar, seed)
            found = read(format, text, tools, prompt if name in ("harmony", "functionary-3.2") else "")
            assert [called for called, _ in found.calls] == [tool.name], text
            assert found.errors == () and found.text == ""
            jsonschema.validate(found.calls[0][1], dict(tool.parameters), format_checker=CHECKER)


@pytest.mark.parametrize("name", FORMATS)
def test_several_calls(name: str, tokenizer: Tokenizer) -> None:
    format, prompt = SYNTAXES[name], "<|start|>assistant" if name == "harmony" else ">>>"
    tools = (PING, Tool("find", schema(["word"], word=WORD)))
    grammar = format.call_grammar(tools, tokenizer, prompt=prompt, may_think=False)
    read_prompt = prompt if name in ("harmony", "functionary-3.2") else ""
    for seed in (0, 1):
        found = read(format, wander(grammar, seed), tools, read_prompt)
        assert len(found.calls) >= 1 and found.errors == ()
        assert {called for called, _ in found.calls} <= {"find", "ping"}
    if name not in ("harmony", "mistral-ids"):  # one call a turn; ids that are made up by the model
        written = format.syntax.write([Call("ping", {}), Call("ping", {})])
        assert accepts(grammar, written.removeprefix(read_prompt))
    one = format.call_grammar(tools, tokenizer, parallel=False, prompt=prompt, may_think=False)
    assert len(read(format, wander(one, 0), tools, read_prompt).calls) == 1


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"harmony", "functionary-3.2"}))
def test_what_is_written_is_read(name: str) -> None:
    """For conversations whose template has no place for calls."""
    calls = [Call("get_weather", {"city": "Zü\"rich'\\ }]", "days": 3, "tags": ["x"]}), Call("ping", {})]
    format = SYNTAXES[name]
    assert read(format, format.syntax.write(calls), (WEATHER, PING)).calls == tuple(
        (call.name, dict(call.arguments)) for call in calls
    )


def test_a_tool_that_is_not_there(tokenizer: Tokenizer) -> None:
    format = choose_format(None)
    with pytest.raises(GrammarError, match="no tool 'x'"):
        format.call_grammar((PING,), tokenizer, name="x")
    with pytest.raises(GrammarError, match="no tool to call"):
        format.call_grammar((), tokenizer)


def test_a_strict_tool_is_held_to_or_refused(tokenizer: Tokenizer) -> None:
    parameters = schema(["a"], a={"type": "array", "items": WORD, "uniqueItems": True})
    with pytest.raises(GrammarError, match="uniqueItems"):
        choose_format(None).call_grammar((Tool("f", parameters, strict=True),), tokenizer)
    choose_format(None).call_grammar((Tool("f", parameters, strict=False),), tokenizer)


def test_thinking_before_a_forced_answer(tokenizer: Tokenizer) -> None:
    """A grammar may begin with the tag of thinking; the rest of it is for what follows the closed thinking."""
    format = choose_format("<tool_call> <think> </think>")
    state = format.answer_grammar('"yes" | "no"', tokenizer).constraint()
    tokens = [tokenizer.encode(text, add_special=False) for text in ("<think>", "yes")]
    assert all(state.mask()[ids[0]] for ids in tokens)
    for token in tokens[0]:
        state.accept(token)
    assert not state.is_accepting and state.mask()[tokens[1][0]]
    closed = format.answer_grammar('"yes" | "no"', tokenizer, may_think=False).constraint()
    assert not closed.mask()[tokens[0][0]]
    opened = format.answer_grammar('"yes" | "no"', tokenizer, prompt="assistant\n<think>\n").constraint()
    assert not opened.mask()[tokens[0][0]] and opened.mask()[tokens[1][0]]


def test_control_tokens_stand_for_themselves(tokenizer: Tokenizer) -> None:
    """In a vocabulary that has the tags of a format, a forced call is written with those tokens, and they are shown."""
    begin, end = (tokenizer.vocab.token_to_id[tag] for tag in ("<|im_start|>", "<repo_name>"))
    format = ToolFormat("test", JsonCalls("<|im_start|>", "<repo_name>"))
    grammar = format.call_grammar((PING,), tokenizer, parallel=False, may_think=False)
    state = grammar.constraint()
    assert np.flatnonzero(state.mask()).tolist() == [begin]
    state.accept(begin)
    for token in tokenizer.encode('{"name": "ping", "arguments": {}}', add_special=False):
        state.accept(token)
    assert np.flatnonzero(state.mask()).tolist() == [end]
    assert format.shown_ids(tokenizer) == {begin, end} - tokenizer.vocab.eog_ids
    decoder = tokenizer.stream(special=format.shown_ids(tokenizer))
    assert decoder.push(begin) + decoder.push(tokenizer.vocab.token_to_id["<file_sep>"]) == "<|im_start|>"


@pytest.mark.parametrize("name", FORMATS)
def test_a_call_can_be_brought_to_an_end(name: str, tokenizer: Tokenizer) -> None:
    """From the beginning, and from inside a text that could go on for ever."""
    format, prompt = SYNTAXES[name], "<|start|>assistant" if name == "harmony" else ">>>"
    tool = Tool("say", schema(["text", "n"], text="string", n={"type": "integer", "minimum": 5}))
    state = format.call_grammar((tool,), tokenizer, name="say", prompt=prompt, may_think=False).constraint()
    x = tokenizer.encode("x", add_special=False)[0]
    text, n_free = b"", 0  # free: inside of the text, where nearly every token may come
    way = state.way_out(200)
    while way and n_free < 20:
        token = x if state.mask()[x] and np.count_nonzero(state.mask()) > tokenizer.n_vocab * 0.8 else way[0]
        n_free += token == x
        state.accept(token)
        text += tokenizer.token_bytes(token)
        way = state.way_out(200)
    assert n_free == 20 and way
    assert state.way_out(len(way) - 1) is None  # it says so where there is no time
    text += b"".join(map(tokenizer.token_bytes, way))
    found = read(format, text.decode(), (tool,), prompt if name in ("harmony", "functionary-3.2") else "")
    arguments = found.calls[0][1]
    assert found.errors == () and "x" * 20 in arguments["text"] and arguments["n"] >= 5
