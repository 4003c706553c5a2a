"""RWKV's greedy byte tokenizer against llama.cpp's ids; its escapes against Python's literals."""

from __future__ import annotations

import ast

import pytest
from golden_ids import check_round_trip, check_small, read, small_metadata, small_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.load import load_tokenizer
from ref_engine.text.tokenizer.rwkv import unescape


def test_small_vocabulary_gives_the_ids_of_llama_cpp() -> None:
    check_small("rwkv")


def test_every_text_is_spelt() -> None:
    check_round_trip(small_tokenizer("rwkv"), read("small-rwkv")["texts"])


@given(st.binary(max_size=40))
def test_escapes_are_those_of_python_bytes(data: bytes) -> None:
    text = repr(data)[2:-1]
    assert unescape(text) == ast.literal_eval(f"b'{text}'" if "'" not in text else f'b"{text}"') == data


def test_text_beyond_ascii_needs_no_escape() -> None:
    assert unescape("é\\n\\\\\\'\\x00") == "é\n\\'\0".encode()


@pytest.mark.parametrize("text", ["\\x", "\\x4", "\\xG0", "\\x4A", "a\\"])
def test_broken_escape_is_an_error(text: str) -> None:
    """Upper-case digits too: llama.cpp reads them as other bytes."""
    metadata = small_metadata("rwkv")
    tokens = [*metadata["tokenizer.ggml.tokens"][:-1], text]
    with pytest.raises(TokenizerError, match="bad escape"):
        load_tokenizer({**metadata, "tokenizer.ggml.tokens": tokens})


def only(*tokens: str, **keys: object) -> dict[str, object]:
    return {"tokenizer.ggml.model": "rwkv", "tokenizer.ggml.tokens": list(tokens)} | {
        f"tokenizer.ggml.{key}": value for key, value in keys.items()
    }


def test_longest_token_wins_and_a_failed_longer_one_does_not() -> None:
    tokenizer = load_tokenizer(only("a", "ab", "abcd", "c"))
    assert tokenizer.encode("ababcabcd") == [1, 1, 3, 2]


def test_byte_without_token() -> None:
    with pytest.raises(TokenizerError, match="no token for byte 0x62"):
        load_tokenizer(only("a", "bc")).encode("ab")
    assert load_tokenizer(only("a", "bc", "?", unknown_token_id=2)).encode("abab") == [0, 2, 0, 2]


def test_long_runs() -> None:
    tokenizer = small_tokenizer("rwkv")
    text = "a" * 200_000 + " " * 200_000
    assert tokenizer.decode(tokenizer.encode(text)) == text
