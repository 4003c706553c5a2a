"""SentencePiece BPE against llama.cpp's ids; its merging against the definition; hostile texts and
vocabularies.
"""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from golden_ids import (
    cached_tokenizer,
    check_cached,
    check_round_trip,
    check_small,
    read,
    small_metadata,
    small_tokenizer,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.load import load_tokenizer
from ref_engine.text.tokenizer.spm import merge_long, merge_short, score_ranks
from ref_engine.text.tokenizer.words import adjacent_pairs, mark_leads, word_splitter

PUBLIC = ("llama-spm", "phi-3", "baichuan", "gemma-3-270m")


@pytest.mark.parametrize("name", ["spm-trained", "spm-ties"])
def test_small_vocabulary_gives_the_ids_of_llama_cpp(name: str) -> None:
    check_small(name)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_vocabulary_gives_the_ids_of_llama_cpp(name: str) -> None:
    check_cached(name)


def test_trained_vocabulary_spells_every_text() -> None:
    check_round_trip(small_tokenizer("spm-trained"), read("small-spm-trained")["texts"])


@pytest.mark.parametrize("name", PUBLIC)
def test_public_vocabulary_spells_every_text(name: str) -> None:
    check_round_trip(cached_tokenizer(name), read("texts"))


def merge_by_definition(text: str, score: dict[str, float]) -> list[str]:
    """The best pair of neighbours merges, the leftmost among equals, until no concatenation is a token."""
    symbols = list(text)
    while True:
        found = [(score[a + b], -i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in score]
        if not found:
            return symbols
        at = -max(found)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=6), st.sampled_from([0.0, -1.0, -2.0, -3.0]), max_size=60),
    st.text("abc", max_size=80),
)
def test_both_merges_are_the_definition(score: dict[str, float], text: str) -> None:
    rank = score_ranks(list(score), list(score.values()))
    expected = merge_by_definition(text, score)
    assert merge_short(list(text), rank) == expected
    assert merge_long(list(text), rank) == expected


def test_a_worse_token_can_open_the_way_to_a_better_one() -> None:
    """By hand: "bc" (-5) is the only pair, then "abc" (-1) becomes possible and beats "bcd" (-2)."""
    rank = score_ranks(["bc", "abc", "bcd"], [-5.0, -1.0, -2.0])
    assert merge_short(list("abcd"), rank) == merge_long(list("abcd"), rank) == ["abc", "d"]


def test_equal_scores_merge_from_the_left() -> None:
    assert merge_long(list("aaaaa"), score_ranks(["aa", "aaa"], [0.0, 0.0])) == ["aaa", "aa"]


def test_words_are_cut_where_no_token_lies_across() -> None:
    tokens = ["▁a", "a>▁<", "▁▁"]
    assert adjacent_pairs(tokens) == set(map(tuple, ("▁a", "a>", ">▁", "▁<", "▁▁")))
    assert mark_leads(tokens) == {">", "▁"}
    assert word_splitter(mark_leads(tokens))("b▁a>▁<a▁▁b▁c") == ["b", "▁a>▁<a", "▁▁b", "▁c"]


@pytest.mark.parametrize("unit", ["a", " ", "ab", "\n", "0", "é", "<s", "\U0001f600", "▁"])
def test_long_runs_take_no_quadratic_time(unit: str) -> None:
    """100,000 characters of one piece: minutes with a quadratic merge, a second with a heap."""
    tokenizer = small_tokenizer("spm-trained")
    text = unit * (100_000 // len(unit))
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")


def test_memory_of_words_is_bounded() -> None:
    tokenizer = load_tokenizer(small_metadata("spm-trained"))
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefgh", k=7)) for _ in range(40_000)]
    text = " ".join(words)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer._kept) <= 1 << 15  # type: ignore[attr-defined]


def changed(**keys: object) -> dict[str, object]:
    return {**small_metadata("spm-trained"), **{f"tokenizer.ggml.{key}": value for key, value in keys.items()}}


def test_character_without_token_or_bytes_is_an_error() -> None:
    tokens = [t.replace("<0xC3>", "gone") for t in small_metadata("spm-trained")["tokenizer.ggml.tokens"]]
    tokenizer = load_tokenizer(changed(tokens=tokens))
    assert tokenizer.decode(tokenizer.encode("ok")) == "ok"
    with pytest.raises(TokenizerError, match="no token for byte 0xC3"):
        tokenizer.encode("\u00ff")


def test_score_that_is_no_number_is_an_error() -> None:
    scores = list(small_metadata("spm-trained")["tokenizer.ggml.scores"])
    scores[300] = math.nan
    with pytest.raises(TokenizerError, match="not a number"):
        load_tokenizer(changed(scores=scores))


def test_infinite_scores_still_order_the_merges() -> None:
    assert merge_short(list("abc"), score_ranks(["ab", "bc"], [-math.inf, math.inf])) == ["a", "bc"]
