"""PLaMo-2's tokenizer against llama.cpp's ids and against a search over all splits; hostile vocabularies."""

from __future__ import annotations

import math

import pytest
from golden_ids import check_round_trip, check_small, read, small_metadata, small_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.load import load_tokenizer
from ref_engine.text.tokenizer.plamo2 import best_split, build_table, fixed_point

BYTES = {byte: 1000 + byte for byte in range(256)}


def test_small_vocabulary_gives_the_ids_of_llama_cpp() -> None:
    check_small("plamo2")


def test_every_text_is_spelt_but_for_a_leading_mark() -> None:
    texts = [text for text in read("small-plamo2")["texts"] if "\ufeff" not in text]
    check_round_trip(small_tokenizer("plamo2"), texts)
    tokenizer = small_tokenizer("plamo2")
    assert tokenizer.decode(tokenizer.encode("\ufeffa\ufeff")) == "a\ufeff"


def best_cost(text: str, score: dict[str, float]) -> int:
    """The lowest cost of any split, by the forward recursion; a character outside the vocabulary costs
    10**7.
    """
    best = [0] + [1 << 60] * len(text)
    for end in range(1, len(text) + 1):
        best[end] = best[end - 1] + 10_000_000
        for start in range(end):
            if (token := text[start:end]) in score:
                best[end] = min(best[end], best[start] - fixed_point(score[token]))
    return best[-1]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=5), st.floats(-20, 0), min_size=1, max_size=40),
    st.text("abcd", max_size=30),
)
def test_no_split_is_better(score: dict[str, float], text: str) -> None:
    tokens = list(score)
    ids = best_split(text, build_table(tokens, list(score.values()), [False] * len(tokens)), BYTES)
    pieces = [tokens[id] if id < 1000 else chr(id - 1000) for id in ids]
    assert "".join(pieces) == text
    cost = sum(-fixed_point(score[p]) if id < 1000 else 10_000_000 for p, id in zip(pieces, ids, strict=True))
    assert cost == best_cost(text, score)


@pytest.mark.parametrize(
    ("score", "expected"),
    [(-1.0, -10_000), (0.00005, 1), (-0.00005, -1), (0.00004, 0), (math.nan, -20_000_000), (math.inf, -20_000_000)],
)
def test_fixed_point(score: float, expected: int) -> None:
    assert fixed_point(score) == expected


def changed(**keys: object) -> dict[str, object]:
    return {**small_metadata("plamo2"), **{f"tokenizer.ggml.{key}": value for key, value in keys.items()}}


def test_score_beyond_32_bits_is_an_error() -> None:
    scores = list(small_metadata("plamo2")["tokenizer.ggml.scores"])
    scores[-1] = -3e5
    with pytest.raises(TokenizerError, match="score of -300000"):
        load_tokenizer(changed(scores=scores))


def test_missing_byte_token_is_an_error() -> None:
    tokens = [t.replace("<0x7F>", "gone") for t in small_metadata("plamo2")["tokenizer.ggml.tokens"]]
    with pytest.raises(TokenizerError, match="no token <0x7F>"):
        load_tokenizer(changed(tokens=tokens))


@pytest.mark.parametrize("long", [["x" * 1025], [f"{i}" + "x" * 1000 for i in range(100, 125)]])
def test_overlong_tokens_are_an_error(long: list[str]) -> None:
    """The table would hold every suffix of every token."""
    tokens = [*small_metadata("plamo2")["tokenizer.ggml.tokens"][: -len(long)], *long]
    with pytest.raises(TokenizerError, match="too long"):
        load_tokenizer(changed(tokens=tokens))


def test_long_runs() -> None:
    tokenizer = small_tokenizer("plamo2")
    text = "a" * 50_000 + "\U0001f600" * 10_000
    assert tokenizer.decode(tokenizer.encode(text)) == text
