"""The unigram tokenizer against llama.cpp's ids; Viterbi against all splits; normalisers that point
anywhere.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from golden_ids import CHARSMAP, check_cached, check_small, small_metadata, small_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.charsmap import Charsmap, parse_charsmap
from ref_engine.text.tokenizer.lengths import lengths_by_head
from ref_engine.text.tokenizer.load import load_tokenizer
from ref_engine.text.tokenizer.normaliser import Normaliser, sequence_length
from ref_engine.text.tokenizer.ugm import Lexicon, best_split, exact_range, unknown_score


@pytest.mark.parametrize("name", ["ugm", "ugm-keep-spaces", "ugm-no-prefix", "ugm-ties", "ugm-fine"])
def test_small_vocabulary_gives_the_ids_of_llama_cpp(name: str) -> None:
    check_small(name)


def test_the_two_ways_to_split_are_both_held() -> None:
    """Sums of the one vocabulary are exact, so words are split on their own; those of the other are not."""
    assert exact_range(small_metadata("ugm-ties")["tokenizer.ggml.scores"]) > 1e15
    assert exact_range(small_metadata("ugm-fine")["tokenizer.ggml.scores"]) == 0.0


def test_public_vocabulary_gives_the_ids_of_llama_cpp() -> None:
    check_cached("nomic-bert-moe")


@pytest.mark.parametrize("text", ["The old lighthouse was lit again.", "a  b", " x ", "<x0> and <x1>the"])
def test_text_of_known_characters_comes_back(text: str) -> None:
    tokenizer = small_tokenizer("ugm-keep-spaces")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def lexicon(scores: dict[str, float]) -> Lexicon:
    ids = {token.encode(): id for id, token in enumerate(scores)}
    values = [*scores.values(), 0.0]
    return Lexicon(ids, lengths_by_head(ids), values, len(scores), unknown_score(scores.values()))


def all_splits(text: str, scores: dict[str, float]) -> Iterable[float]:
    """The sum of scores of every split; a character that is no token may be unknown."""
    if not text:
        yield 0.0
    for end in range(1, len(text) + 1):
        score = scores.get(text[:end])
        if score is None and end == 1:
            score = unknown_score(scores.values())
        if score is not None:
            yield from (score + rest for rest in all_splits(text[end:], scores))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.text("abé", min_size=1, max_size=4), st.integers(-12, 0).map(float), min_size=1, max_size=20),
    st.text("abéc", min_size=1, max_size=8),
)
def test_no_split_is_better(scores: dict[str, float], text: str) -> None:
    ids, score = best_split(text.encode(), lexicon(scores))
    assert score == max(all_splits(text, scores))
    assert all(a != b or a != len(scores) for a, b in pairwise(ids))


def test_unknown_characters_in_a_row_are_one() -> None:
    assert best_split(b"a??b", lexicon({"a": -1.0, "b": -1.0})) == ([0, 2, 1], -24.0)


def test_range_of_exact_sums() -> None:
    """Multiples of 1/4 are exact in float64 below 2**51; a third is not a multiple of any unit worth
    having.
    """
    assert exact_range([-1.5, -0.25, 0.0]) == 2.0**51
    assert exact_range([-1.0, 2.0**-70]) == 0.0


# -- normaliser
# ----------------------------------------------------------------------------------------------------

ROOT, TERMINAL = 1, 0x8000_0000


def charsmap(entries: dict[int, int], replacements: bytes, size: int = 512) -> Charsmap:
    """A trie with the given units; the root's children begin at 256."""
    units = [256 << 10 | 0 if index == 0 else entries.get(index, 0xFF) for index in range(size)]
    blob = struct.pack(f"<{size}I", *units)
    return parse_charsmap(struct.pack("<I", len(blob)) + blob + replacements)


def one_letter(letter: str, value: int) -> dict[int, int]:
    """Units for a one-letter sequence: its node has offset 1, and the value lies at node ^ 1."""
    node = 256 ^ ord(letter)
    return {node: 1 << 10 | 0x100 | ord(letter), node ^ 1: TERMINAL | value}


def test_charsmap_by_hand() -> None:
    found = charsmap(one_letter("b", 3), b"xx\0yes\0")
    assert found.longest(b"ab", 1) == (1, b"yes")
    assert found.longest(b"ab", 0) == (0, b"")
    assert found.ignores(b"ab") and not found.ignores(b"ba")
    assert parse_charsmap(b"").longest(b"b", 0) == (0, b"")


def normaliser(found: Charsmap, **flags: bool) -> Normaliser:
    options = {"add_space": False, "space_last": False, "merge_spaces": False} | flags
    return Normaliser(found, [b"bc"], **options)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "_a__x_"),
        ({"add_space": True}, "__a__x_"),
        ({"add_space": True, "space_last": True}, "_a__x__"),
        ({"merge_spaces": True}, "_a_x"),
        ({"merge_spaces": True, "add_space": True}, "_a_x"),
    ],
)
def test_spaces(flags: dict[str, bool], expected: str) -> None:
    assert normaliser(parse_charsmap(b""), **flags)(b" a  x ").decode().replace("\u2581", "_") == expected


def test_the_beginning_of_a_user_defined_token_is_kept() -> None:
    """As llama.cpp does: "b" begins the token "bc", so it is not replaced, though the token is not in the
    text.
    """
    found = charsmap(one_letter("b", 0) | one_letter("d", 0), b"yes\0")
    assert normaliser(found)(b"bdbc") == b"byesbc"


@pytest.mark.parametrize(
    ("entries", "replacements", "message"),
    [
        (one_letter("b", 900), b"yes\0", "no replacement ends behind offset 900"),
        (one_letter("b", 1), b"unterminated", "no replacement ends"),
        ({256 ^ ord("b"): 0x1FFFFF << 10 | 0x100 | ord("b")}, b"yes\0", "lies outside"),
    ],
)
def test_charsmap_that_points_outside_is_an_error(entries: dict[int, int], replacements: bytes, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        charsmap(entries, replacements).longest(b"b", 0)


@pytest.mark.parametrize("blob", [b"\0\0\0", b"\xff\xff\xff\xff....", struct.pack("<I", 4) + b"abcd"])
def test_charsmap_that_is_cut_off_is_an_error(blob: bytes) -> None:
    with pytest.raises(TokenizerError, match="precompiled_charsmap"):
        parse_charsmap(blob)
    with pytest.raises(TokenizerError, match="precompiled_charsmap"):
        load_tokenizer({**small_metadata("ugm"), CHARSMAP: np.frombuffer(blob, np.uint8)})


def test_mutated_charsmaps_normalise_or_say_why() -> None:
    draw = random.Random(1)
    metadata = small_metadata("ugm")
    refused = changed = 0
    usual = small_tokenizer("ugm").encode("ﬁ ½ e\u0301 a\u0308\u0304x \u1112\u1161\u11ab")
    for _ in range(60):
        blob = metadata[CHARSMAP].copy()
        for _ in range(400):
            blob[draw.randrange(4, len(blob))] = draw.randrange(256)
        try:
            ids = load_tokenizer({**metadata, CHARSMAP: blob}).encode("ﬁ ½ e\u0301 a\u0308\u0304x \u1112\u1161\u11ab")
            changed += ids != usual
        except TokenizerError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused and changed


def test_replacement_that_cuts_a_character_apart() -> None:
    """The first byte of "é" replaced: what is left of it is no UTF-8 and becomes U+FFFD; the ids are still
    there.
    """
    node = 256 ^ 0xC3
    found = charsmap({node: 1 << 10 | 0x100 | 0xC3, node ^ 1: TERMINAL}, b"\xc3\0")
    assert normaliser(found)("é".encode()) == b"\xc3\xef\xbf\xbd"
    assert best_split(b"a\xc3\xef\xbf\xbdb", lexicon({"a": -1.0, "b": -1.0}))[0] == [0, 2, 1]


@given(st.binary(min_size=1, max_size=8))
def test_sequence_length_is_right_for_utf8_and_stays_inside(data: bytes) -> None:
    length = sequence_length(data, 0)
    assert 0 <= length <= len(data)
    try:
        first = data.decode("utf-8", "strict")[0]
    except UnicodeDecodeError:
        return
    assert length == len(first.encode())


# -- hostile vocabularies
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_score_that_cannot_be_added_is_an_error(score: float) -> None:
    scores = list(small_metadata("ugm")["tokenizer.ggml.scores"])
    scores[100] = score
    with pytest.raises(TokenizerError, match="token 100 of the vocabulary has the score"):
        load_tokenizer({**small_metadata("ugm"), "tokenizer.ggml.scores": scores})


def test_vocabulary_without_unknown_token_is_an_error() -> None:
    metadata = {"tokenizer.ggml.model": "t5", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.scores": [0.0]}
    with pytest.raises(TokenizerError, match="no unknown token"):
        load_tokenizer(metadata)


def test_vocabulary_without_normal_tokens_knows_nothing() -> None:
    metadata = {"tokenizer.ggml.model": "t5", "tokenizer.ggml.tokens": ["p", "e", "u"]}
    metadata |= {"tokenizer.ggml.token_type": [3, 3, 2]}
    assert load_tokenizer(metadata).encode("xyz", add_special=False) == [2]


def test_long_runs() -> None:
    tokenizer = small_tokenizer("ugm-keep-spaces")
    text = "a" * 30_000 + " " * 30_000 + "a"
    assert tokenizer.decode(tokenizer.encode(text)) == text
