"""WordPiece against llama.cpp's ids, its normalisation against Unicode's own data, and vocabularies with
holes.
"""

from __future__ import annotations

import unicodedata

import pytest
from golden_ids import check_cached, check_small, small_metadata, small_tokenizer

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.lengths import lengths_by_head
from ref_engine.text.tokenizer.load import load_tokenizer
from ref_engine.text.tokenizer.wpm import longest_pieces, major_category, normalise_character


@pytest.mark.parametrize("name", ["wpm", "wpm-cased", "wpm-accents"])
def test_small_vocabulary_gives_the_ids_of_llama_cpp(name: str) -> None:
    check_small(name)


def test_public_vocabulary_gives_the_ids_of_llama_cpp() -> None:
    check_cached("bert-bge")


def test_words_come_back_without_case_accents_and_spacing() -> None:
    tokenizer = small_tokenizer("wpm")
    assert tokenizer.decode(tokenizer.encode("  One\tTWO\n thrée ")) == "one two three"


def test_categories_are_those_of_unicode() -> None:
    """Where Python's own, perhaps older or newer, table defines a character too, the category is the same."""
    for code in (*range(0x20000), *range(0xE0000, 0xE0200), *range(0x10FF00, 0x110000)):
        own = major_category(chr(code))
        pythons = unicodedata.category(chr(code))
        assert own == "U" or pythons == "Cn" or own == pythons[0], hex(code)


@pytest.mark.parametrize(
    ("character", "lowercase", "strip", "expected"),
    [
        ("A", True, True, ("a", False)),
        ("A", False, True, ("A", False)),
        ("\u00c9", True, True, ("e", False)),  # E with acute: the accent goes with the rest of the decomposition
        ("\u00c9", True, False, ("\u00e9", False)),
        ("\u0301", True, True, ("", False)),
        ("\u0301", True, False, ("\u0301", False)),
        ("\u0130", True, False, ("i", False)),  # the only lower-case mapping of two characters
        ("\u00ad", True, True, ("", False)),  # format character
        ("\ue000", True, True, ("", False)),  # private use
        ("\ufffd", True, True, ("", False)),
        ("$", True, True, ("$", True)),  # ASCII symbol
        ("\u20ac", True, True, ("\u20ac", False)),  # other symbol
        ("\u3002", True, True, ("\u3002", True)),
        ("\u4e2d", True, True, ("\u4e2d", True)),
        ("\U0002b820", True, True, ("\U0002b820", False)),  # CJK extension E, first 256: not in the table
        ("\U0002b920", True, True, ("\U0002b920", True)),
        ("\U00011f43", True, True, ("\U00011f43", True)),  # punctuation since Unicode 15.0
        ("\U00010d50", True, True, ("\U00010d50", False)),  # a capital since 16.0: undefined here, so no lower case
    ],
)
def test_characters(character: str, lowercase: bool, strip: bool, expected: tuple[str, bool]) -> None:
    assert normalise_character(character, lowercase=lowercase, strip_accents=strip) == expected


def test_a_word_is_cut_greedily_or_not_at_all() -> None:
    ids = {"▁ab": 0, "▁abc": 1, "d": 2, "cd": 3, "▁": 4}
    lengths = lengths_by_head(ids)
    assert longest_pieces("▁abcd", ids, lengths) == [1, 2]  # not ▁ab + cd
    assert longest_pieces("▁abcx", ids, lengths) is None
    assert longest_pieces("▁", ids, lengths) == [4]


def test_unknown_word_without_unknown_token_is_an_error() -> None:
    metadata = {key: value for key, value in small_metadata("wpm").items() if not key.endswith("unknown_token_id")}
    tokens = metadata["tokenizer.ggml.tokens"][:90]  # fewer than the default id of 100
    metadata |= {"tokenizer.ggml.tokens": tokens}
    with pytest.raises(TokenizerError, match="no tokens for"):
        load_tokenizer(metadata).encode("\u4e2d", add_special=False)


def test_long_word() -> None:
    """Linear: each position tries the few lengths that tokens beginning with its two letters have."""
    tokenizer = small_tokenizer("wpm")
    assert len(tokenizer.encode("q" * 50_000, add_special=False)) == 50_001 - ("▁q" in tokenizer.vocab.token_to_id)


def test_overlong_token_is_an_error() -> None:
    metadata = small_metadata("wpm")
    tokens = [*metadata["tokenizer.ggml.tokens"][:-1], "x" * 1025]
    with pytest.raises(TokenizerError, match="1025 units"):
        load_tokenizer({**metadata, "tokenizer.ggml.tokens": tokens})
