"""Tools that may be called or not: free text, and calls that obey their schemas once they have begun."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import numpy as np
import pytest
from test_tools_grammar import BOOKING, CHECKER, FORMATS, SYNTAXES
from tool_answers import PING, read

from ref_engine.errors import GrammarError
from ref_engine.text.chat.tools import Call
from ref_engine.text.grammar.triggered import TriggeredConstraint
from ref_engine.text.tokenizer import Tokenizer, load_tokenizer

PROMPTS = {"harmony": "<|start|>assistant", "functionary-3.2": ">>>"}
LEADS = {"harmony": "<|channel|>", "functionary-3.2": "all\nWell <, [ >.", "llama-3": "", "llama-pythonic": ""}


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return load_tokenizer(smollm2)


def follow(state: TriggeredConstraint, tokenizer: Tokenizer, text: str) -> None:
    for token in tokenizer.encode(text, add_special=False, parse_special=False):
        assert state.allows(token), (tokenizer.token_bytes(token), text)
        state.accept(token)


def wander(state: TriggeredConstraint, tokenizer: Tokenizer, seed: int) -> str:
    """Tokens that the grammar allows, none of which a model would choose, until the text is free again."""
    random = np.random.default_rng(seed)
    ends = sorted(tokenizer.vocab.eog_ids)
    lengths = np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.n_vocab)])
    text = b""
    for step in range(2000):
        if state.is_accepting:
            return text.decode()
        mask = state.mask()
        assert not mask[ends].any()
        allowed = np.flatnonzero(mask)
        if step > 100:
            allowed = allowed[lengths[allowed] <= lengths[allowed].min()]
        token = int(random.choice(allowed))
        assert state.allows(token)
        text += tokenizer.token_bytes(token)
        state.accept(token)
    raise AssertionError(f"no end: {text[-200:]!r}")


WHOLE_NAMES = {"functionary-3.2": "-table\n", "llama-pythonic": "-table("}  # without these it is no call yet


@pytest.mark.parametrize("name", FORMATS)
def test_a_call_that_has_begun_obeys_its_schema(name: str, tokenizer: Tokenizer) -> None:
    """The beginning is written as the model writes it, into the tool's name; then anything goes that is allowed."""
    format, prompt = SYNTAXES[name], PROMPTS.get(name, "")
    grammar = format.open_grammar((BOOKING, PING), tokenizer, prompt=prompt)
    begun = format.syntax.write([Call("book-table", {})]).partition("book-table")[0]
    begun = ("commentary to=functions." if name == "harmony" else begun) + "book" + WHOLE_NAMES.get(name, "")
    lead = LEADS.get(name, "Well <, [ > {")
    for seed, text in enumerate([lead + begun] + [begun.removeprefix(prompt)] * (name != "harmony")):
        state = grammar.constraint()
        follow(state, tokenizer, text)
        assert not state.is_accepting
        answer = text + wander(state, tokenizer, seed)
        found = read(format, answer, (BOOKING, PING), prompt)
        assert found.errors == () and found.calls[0][0] == "book-table", answer
        assert found.text in ("", "Well <, [ > {", "Well <, [ >.")
        for called, arguments in found.calls:
            jsonschema.validate(
                arguments, {"book-table": BOOKING, "ping": PING}[called].parameters, format_checker=CHECKER
            )
        assert all(map(state.allows, tokenizer.vocab.eog_ids))


@pytest.mark.parametrize("name", FORMATS)
def test_free_text_is_left_alone(name: str, tokenizer: Tokenizer) -> None:
    """Any tokens at all, as long as they do not spell what begins a call."""
    random = np.random.default_rng(1)
    state = SYNTAXES[name].open_grammar((BOOKING, PING), tokenizer).constraint()
    for token in random.integers(0, tokenizer.n_vocab, 300).tolist():
        assert state.allows(token) and state.is_accepting and state.way_out(0) == []
        state.accept(token)
    assert all(map(state.allows, tokenizer.vocab.eog_ids))


def test_a_token_that_reaches_behind_the_tag(tokenizer: Tokenizer) -> None:
    """`mask` and `allows` agree: what follows the tag in the same token must be the grammar's, too."""
    state = SYNTAXES["functionary-3.1"].open_grammar((PING,), tokenizer).constraint()
    follow(state, tokenizer, "see <function")
    mask = state.mask()
    pieces = {id: tokenizer.token_bytes(id) for id in range(tokenizer.n_vocab)}
    behind = {id: piece for id, piece in pieces.items() if piece.startswith(b"=")}
    assert [mask[id] for id in behind] == [piece == b"=" for piece in behind.values()]
    assert {b"=", b'="', b"=%"} <= set(behind.values())
    assert mask[[id for id in pieces if id not in behind]].all()
    assert all(state.allows(id) == mask[id] for id in [*behind, 100, 2000])
    with pytest.raises(GrammarError, match="not allowed here"):
        state.accept(next(id for id, piece in behind.items() if piece == b'="'))


def test_behind_a_call_comes_another_one_or_text(tokenizer: Tokenizer) -> None:
    format = SYNTAXES["hermes"]
    call = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    for rest, calls, text in (
        ("\n" + call, 2, ""),
        ("\nDone, < or >.", 1, "Done, < or >."),
        (" Now: " + call + "!", 2, "Now:!"),
    ):
        state = format.open_grammar((PING,), tokenizer).constraint()
        follow(state, tokenizer, call + rest)
        assert state.is_accepting
        found = read(format, call + rest, (PING,))
        assert len(found.calls) == calls and found.text.replace("\n", "").replace(" !", "!") == text
        assert state.mask()[sorted(tokenizer.vocab.eog_ids)].all()


def test_a_call_that_the_prompt_has_begun(tokenizer: Tokenizer) -> None:
    state = SYNTAXES["hermes"].open_grammar((PING,), tokenizer, prompt="...<tool_call>\n").constraint()
    assert not state.is_accepting
    follow(state, tokenizer, '\n{"name": "ping", "arguments": {')
    way = state.way_out(20)
    assert way is not None and b"".join(map(tokenizer.token_bytes, way)) == b"}}\n</tool_call>"
    assert state.way_out(2) is None
