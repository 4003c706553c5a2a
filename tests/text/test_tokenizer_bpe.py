"""Byte-pair ids, special tokens and decoding against llama.cpp, under every pre-tokenizer name that it knows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ref_engine.text.tokenizer import Tokenizer, load_tokenizer
from ref_engine.text.tokenizer.pres import PRES

GOLDEN = Path(__file__).parents[2] / "golden" / "tokenizers" / "bpe"


def unpack(name: str) -> Any:
    return json.loads(gzip.decompress((GOLDEN / name).read_bytes()))


SMALL = unpack("small.json.gz")


def small_tokenizer(case: str) -> Tokenizer:
    return load_tokenizer(SMALL["metadata"] | SMALL["models"][case]["keys"])


def differing(tokenizer: Tokenizer, texts: list[str], ids: list[list[int]], special: bool) -> list[str]:
    """The texts whose ids are not the golden ones."""
    pairs = zip(texts, ids, strict=True)
    return [text for text, want in pairs if tokenizer.encode(text, special, special) != want]


def test_every_pre_tokenizer_of_llama_cpp_is_covered() -> None:
    names = {case.removeprefix("pre ") for case in SMALL["models"] if case.startswith("pre ")}
    assert names == set(PRES)


@pytest.mark.parametrize("case", SMALL["models"])
def test_small_vocabulary(case: str) -> None:
    tokenizer = small_tokenizer(case)
    want = SMALL["runs"][SMALL["models"][case]["run"]]
    assert differing(tokenizer, SMALL["texts"], want["ids"], False) == []
    assert differing(tokenizer, SMALL["special_texts"], want["ids_of_special"], True) == []
    assert differing(tokenizer, SMALL["special_texts"], want["ids_of_special_as_text"], False) == []
    vocab = tokenizer.vocab
    special = {name: getattr(vocab, f"{name}_id") for name in want["special_ids"]}
    # Of <|im_end|> and <|endoftext|> llama.cpp takes the one that comes first in a hash table.
    assert vocab.tokens[special.pop("eot")] == "<|im_end|>"
    assert special == {name: id for name, id in want["special_ids"].items() if name != "eot"}
    assert {name: getattr(vocab, name) for name in want["flags"]} == want["flags"]
    for ids, text in zip(want["ids"], want["text_of_ids"], strict=True):
        if "[UNK_BYTE_0x" not in text:  # llama.cpp's way to show a token that is not of the 256 letters
            assert tokenizer.decode(ids, strip_added=False, clean_spaces=True) == text


@pytest.mark.parametrize("case", [case for case in SMALL["models"] if case.startswith("pre ")])
def test_bytes_survive(case: str) -> None:
    """A byte-level vocabulary with all bytes can spell any text."""
    if not PRES[case.removeprefix("pre ")].byte_encoded:
        pytest.skip("does not apply: it spells in characters, and drops those it has no token for")
    tokenizer = small_tokenizer(case)
    strips = case.startswith("pre jina-v2")  # their <mask> takes the white space before it along
    for text in SMALL["texts"] + SMALL["special_texts"]:
        assert tokenizer.decode(tokenizer.encode(text)) == (text.replace(" <mask>", "<mask>") if strips else text)
        assert tokenizer.decode(tokenizer.encode(text, False, False), strip_added=False) == text


@pytest.mark.parametrize("case", ["pre gpt-2", "pre gemma4", "pre llama-bpe"])
def test_merging_in_python_gives_the_same(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of vocabularies that the compiled merger cannot take."""
    monkeypatch.setattr("ref_engine.text.tokenizer.bpe.compiled_merger", lambda *args, **kwargs: None)
    tokenizer = small_tokenizer(case)
    want = SMALL["runs"][SMALL["models"][case]["run"]]
    assert differing(tokenizer, SMALL["texts"], want["ids"], False) == []


def test_a_lone_surrogate_counts_as_the_replacement_character() -> None:
    tokenizer = small_tokenizer("pre gpt-2")
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a\ufffdb")
    assert tokenizer.encode("\udc80 \udfff") == tokenizer.encode("\ufffd \ufffd")
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")  # two halves of one character are that one


@pytest.mark.parametrize("text", ["a" * 200_000, " " * 200_000, "7" * 200_000, "\u0301" * 60_000, "a " * 100_000])
@pytest.mark.parametrize("case", ["pre gpt-2", "pre jais-2", "pre deepseek-llm", "pre superbpe", "pre gemma4"])
def test_long_runs(case: str, text: str) -> None:
    """Nothing quadratic: with one, this would take minutes."""
    tokenizer = small_tokenizer(case)
    ids = tokenizer.encode(text, add_special=False)
    if case != "pre gemma4" or text.isascii():
        assert tokenizer.decode(ids) == text


def test_long_words_merge_in_python_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ref_engine.text.tokenizer.bpe.compiled_merger", lambda *args, **kwargs: None)
    tokenizer = small_tokenizer("pre gpt-2")
    assert tokenizer.decode(tokenizer.encode("ab" * 50_000)) == "ab" * 50_000
