"""A vocabulary small enough to merge by hand: ids, special tokens, decoding, streaming, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer import Tokenizer, load_tokenizer
from ref_engine.text.tokenizer.bytelevel import LETTERS
from ref_engine.text.tokenizer.merge import merge, read_merges
from ref_engine.text.tokenizer.partition import Partition
from ref_engine.text.tokenizer.special import CONTROL, LSTRIP, NORMAL, RSTRIP, USER_DEFINED
from ref_engine.text.tokenizer.tidy import clean_spaces

# Ids 0 to 255 are the bytes; "Ġ" (U+0120) is the letter of the space.
WORDS = ("lo", "low", "er", "Ġlow", "ne", "new", "est")
MERGES = ("l o", "lo w", "e r", "Ġ low", "n e", "ne w", "e s", "es t")
SPECIAL = ("<s>", "</s>", "<tool>", "<unk>")
ID = {text: 256 + place for place, text in enumerate((*WORDS, "es", *SPECIAL))}


def metadata(**keys: object) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*LETTERS, *WORDS, "es", *SPECIAL],
        "tokenizer.ggml.token_type": np.array([1] * 264 + [3, 3, 4, 2], np.int32),
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": ID["<s>"],
        "tokenizer.ggml.eos_token_id": ID["</s>"],
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(metadata())


def test_merges_by_hand(tokenizer: Tokenizer) -> None:
    # " lowest": lo, low, Ġlow; then es, est. "newer": er merges before ne, so that "new" and "er" remain.
    assert tokenizer.encode("low lowest") == [ID["low"], ID["Ġlow"], ID["est"]]
    assert tokenizer.encode("newer") == [ID["new"], ID["er"]]
    # "lower": the leftmost pair of the best rank; "w" and "er" have no pair.
    assert tokenizer.encode("lower") == [ID["low"], ID["er"]]
    assert tokenizer.encode("é") == [0xC3, 0xA9]
    assert tokenizer.encode("") == []


def test_rank_decides_before_place() -> None:
    ranks = read_merges(["b c", "a b", "a bc", "x y z", "nospace"])
    assert ranks == {("b", "c"): 0, ("a", "b"): 1, ("a", "bc"): 2, ("x", "y z"): 3}
    assert merge("abc", ranks) == ["abc"]
    assert merge("ab", ranks) == ["ab"]
    assert merge("aab", ranks) == ["a", "ab"]
    assert merge("aaa", read_merges(["a a"])) == ["aa", "a"]  # the leftmost first
    assert merge("aaaa", read_merges(["a a", "aa aa"])) == ["aaaa"]
    assert read_merges(["a b", "c d", "a b"]) == {("a", "b"): 0, ("c", "d"): 1}
    assert read_merges(["  b"]) == {(" ", "b"): 0}  # the space that separates is not the first character


def test_special_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("<s>low<tool>") == [ID["<s>"], ID["low"], ID["<tool>"]]
    plain = tokenizer.encode("<s>low<tool>", parse_special=False)
    assert plain == [ord("<"), ord("s"), ord(">"), ID["low"], ID["<tool>"]]  # user-defined: in any text
    added = load_tokenizer(metadata(add_bos_token=True, add_eos_token=True))
    assert added.encode("low") == [ID["<s>"], ID["low"], ID["</s>"]]
    assert added.encode("low", add_special=False) == [ID["low"]]
    assert added.decode(added.encode("<s>low")) == "<s>low"  # one <s> was added, and one is dropped
    assert added.decode(added.encode("low"), strip_added=False) == "<s>low</s>"
    assert added.decode(added.encode("<s>low<tool>"), special=False) == "low<tool>"
    assert tokenizer.vocab.eog_ids == {ID["</s>"]}


def test_bos_without_an_id() -> None:
    nameless = load_tokenizer(metadata(add_bos_token=True, bos_token_id=9999, pre="chatglm-bpe"))
    with pytest.raises(TokenizerError, match="begin or end token"):
        nameless.encode("low")
    assert nameless.encode("low", add_special=False) == [ID["low"]]
    assert nameless.decode([ID["low"]]) == "low"


def test_partition_longest_first_and_white_space() -> None:
    tokens = ["<a>", "<a><b>", "<b>", "x<a", "<l>", "<r>"]
    attrs = [CONTROL, CONTROL, USER_DEFINED, NORMAL, CONTROL | LSTRIP, CONTROL | RSTRIP]
    partition = Partition(tokens, attrs)
    assert partition.split("x<a><b><a>y", True) == ["x", 1, 0, "y"]
    assert partition.split("x<a><b><a>y", False) == ["x<a>", 2, "<a>y"]
    assert partition.split("a \t<l> b", True) == ["a", 4, " b"]
    assert partition.split("a <r> \n\x0b b<r> ", True) == ["a ", 5, "b", 5]
    assert partition.split(" <l><r> <l>", True) == [4, 5, 4]
    assert partition.split("a\u00a0<l>", True) == ["a\u00a0", 4]  # white space of C, which is ASCII
    assert partition.split("", True) == []


def test_stream_holds_back_unfinished_characters(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream()
    assert [stream.push(byte) for byte in "é€😀".encode()] == ["", "é", "", "", "€", "", "", "", "😀"]
    assert stream.flush() == ""
    assert [stream.push(0xE2), stream.push(0x82), stream.push(ord("x"))] == ["", "", "\ufffdx"]
    assert [stream.push(0xFF), stream.push(0xC3), stream.flush()] == ["\ufffd", "", "\ufffd"]
    assert stream.push(ID["<s>"]) == ""
    assert tokenizer.stream(special=True).push(ID["<s>"]) == "<s>"


@given(st.lists(st.integers(0, 267), max_size=40), st.booleans())
def test_stream_joins_to_decode(ids: list[int], special: bool) -> None:
    tokenizer = load_tokenizer(metadata())
    stream = tokenizer.stream(special=special, at_start=True)
    text = "".join(map(stream.push, ids)) + stream.flush()
    assert text == tokenizer.decode(ids, special, strip_added=False)
    assert special is False or text == b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace")


def test_clean_spaces() -> None:
    """By the three passes of llama_detokenize."""
    assert clean_spaces("Hi , you ! ' quoted ' I 'm it 's we 're I 've .") == "Hi, you!'quoted'I'm it's we're I've."
    assert clean_spaces("don 't we 'll he 'd  . ?") == "don 't we 'll he 'd .?"


@pytest.mark.parametrize("id", [-1, 268, 1 << 40])
def test_ids_outside_the_vocabulary(tokenizer: Tokenizer, id: int) -> None:
    with pytest.raises(TokenizerError, match="outside the vocabulary of 268"):
        tokenizer.decode([id])
    with pytest.raises(TokenizerError, match=str(id)):
        tokenizer.stream().push(id)


BAD: list[tuple[dict[str, object], str]] = [
    ({"model": "none"}, "no tokenizer"),
    ({"model": "no_vocab"}, "no tokenizer"),
    ({"model": "klingon"}, "'klingon'"),
    ({"model": 7}, "tokenizer.ggml.model"),
    ({"pre": "klingon"}, "pre is 'klingon'"),
    ({"pre": 7}, "tokenizer.ggml.pre is a int"),
    ({"tokens": None}, "tokens is missing"),
    ({"tokens": []}, "tokens is empty"),
    ({"tokens": np.zeros(3)}, "tokens is not an array of strings"),
    ({"tokens": ["a", 7]}, "tokens is not an array of strings"),
    ({"tokens": ["a", "b", "a"], "token_type": None}, "'a' twice: 0 and 2"),
    ({"tokens": ["a", "\ud800"], "token_type": None}, "no UTF-8"),
    ({"merges": None}, "merges is missing"),
    ({"merges": "l o"}, "merges is not an array of strings"),
    ({"merges": [["l", "o"]]}, "merges is not an array of strings"),
    ({"token_type": np.ones(100, np.int32)}, "token_type has 100 entries for 268 tokens"),
    ({"token_type": np.ones(300, np.float32)}, "token_type is an array of float32"),
    ({"token_type": np.ones((268, 1), np.int32)}, "token_type is not an array of numbers"),
    ({"scores": np.ones(5, np.float32)}, "scores has 5 entries for 268 tokens"),
    ({"scores": ["x"] * 268}, "scores is not an array of numbers"),
    ({"bos_token_id": "<s>"}, "bos_token_id is a str"),
    ({"bos_token_id": True}, "bos_token_id is a bool"),
    ({"add_bos_token": 1}, "add_bos_token is a int"),
    ({"suppress_tokens": np.ones(2, np.float32)}, "suppress_tokens is an array of float32"),
]


@pytest.mark.parametrize(("keys", "message"), BAD)
def test_refused_vocabularies(keys: dict[str, object], message: str) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer({key: value for key, value in metadata(**keys).items() if value is not None})
    assert "\n" not in str(caught.value)


def test_odd_vocabularies_that_llama_cpp_takes() -> None:
    # Ids outside the vocabulary are ignored; an empty text gets a name; a text ends at a NUL; types may be
    # unknown.
    odd = load_tokenizer(
        metadata(
            eos_token_id=-1,
            pad_token_id=268,
            tokens=[*LETTERS, "", "lo\0x", *WORDS[2:], "es", *SPECIAL],
            token_type=np.array([1] * 263 + [77] + [3, 3, 4, 2], np.int32),
        )
    )
    assert odd.vocab.tokens[256:258] == ("[EMPTY_256]", "lo")
    assert odd.vocab.eos_id == 11 and odd.vocab.pad_id is None  # 11: the default of "gpt2"
    assert odd.token_bytes(263) == b""
    # The merge "lo w" makes "low", which is no token: as in llama.cpp its bytes are looked up one by one.
    assert odd.encode("low") == [ord("l"), ord("o"), ord("w")]
    # Letters without a token vanish, and nothing merges across them.
    few = load_tokenizer(metadata(tokens=["l", "o", "lo", "w"], token_type=None))
    assert few.encode("lo w lxo", add_special=False) == [2, 3, 0, 1]


def test_defaults_of_a_model_without_keys() -> None:
    bare = {key: metadata()[f"tokenizer.ggml.{key}"] for key in ("model", "tokens", "merges")}
    vocab = load_tokenizer({f"tokenizer.ggml.{key}": value for key, value in bare.items()}).vocab
    assert (vocab.bos_id, vocab.eos_id, vocab.unk_id, vocab.add_bos) == (11, 11, None, False)
    assert vocab.types == (1,) * 268 and set(vocab.scores) == {0.0}
