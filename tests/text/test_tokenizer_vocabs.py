"""llama.cpp's own vocabulary files: what it reads of them, its `.inp`/`.out` pairs, and mixed-script texts."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ref_engine.files.gguf import open_gguf
from ref_engine.text.tokenizer import Tokenizer, Vocab, load_tokenizer, read_vocab
from ref_engine.text.tokenizer.bytelevel import from_letters
from ref_engine.text.tokenizer.special import NORMAL

GOLDEN = Path(__file__).parents[2] / "golden" / "tokenizers" / "bpe" / "vocabs.json.gz"
CACHE = Path(os.environ.get("REF_ENGINE_CACHE", Path.home() / ".cache" / "ref-engine")) / "vocabs"
DATA: Any = json.loads(gzip.decompress(GOLDEN.read_bytes()))
VOCABS: dict[str, Any] = DATA["vocabs"]
BYTE_PAIR = [name for name, facts in VOCABS.items() if "ids" in facts]


def cached(name: str) -> Path:
    path = CACHE / name
    if not path.exists():
        pytest.skip(f"{name} is not in {CACHE}: python -m ref_engine.library.assets fetches it")
    return path


def digest(items: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(item + b"\0" for item in items)).hexdigest()


def pieces(tokenizer: Tokenizer) -> Iterable[bytes]:
    """The bytes of all tokens; nothing for those that llama.cpp shows as an error, being not of the 256
    letters.
    """
    vocab = tokenizer.vocab
    for id, (text, attr) in enumerate(zip(vocab.tokens, vocab.attrs, strict=True)):
        foreign = attr == NORMAL and not vocab.escape_whitespaces and from_letters(text) is None
        yield b"" if foreign else tokenizer.token_bytes(id)


def vocab_of(name: str) -> Vocab:
    with open_gguf(cached(name)) as file:
        return read_vocab(file.metadata)


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest) -> tuple[str, Tokenizer]:
    return request.param, load_tokenizer(cached(request.param))


@pytest.mark.parametrize("name", VOCABS)
def test_what_is_read(name: str) -> None:
    vocab, want = vocab_of(name), VOCABS[name]
    assert digest(token.encode() for token in vocab.tokens) == want["tokens_sha256"]
    assert digest(str(attr).encode() for attr in vocab.attrs) == want["attrs_sha256"]
    assert {key: getattr(vocab, f"{key}_id") for key in want["special_ids"]} == want["special_ids"]
    assert {key: getattr(vocab, key) for key in want["flags"]} == want["flags"]
    assert sorted(vocab.eog_ids) == want["eog_ids"]


@pytest.mark.parametrize("loaded", BYTE_PAIR, indirect=True)
def test_byte_pair_ids_and_pieces(loaded: tuple[str, Tokenizer]) -> None:
    name, tokenizer = loaded
    want = VOCABS[name]
    for text, ids, back in zip(DATA["texts"], want["ids"], want["text_of_ids"], strict=True):
        assert tokenizer.encode(text, False, False) == ids, text
        assert tokenizer.decode(ids, strip_added=False, clean_spaces=True) == back
    for text, ids, plain in zip(
        DATA["special_texts"], want["ids_of_special"], want["ids_of_special_as_text"], strict=True
    ):
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.encode(text, False, False) == plain, text
    assert digest(pieces(tokenizer)) == want["pieces_sha256"]


@pytest.mark.parametrize("loaded", BYTE_PAIR, indirect=True)
def test_pairs(loaded: tuple[str, Tokenizer]) -> None:
    name, tokenizer = loaded
    inputs, outputs = cached(name).with_suffix(".gguf.inp"), cached(name).with_suffix(".gguf.out")
    if not inputs.exists():
        pytest.skip(f"does not apply: {name} comes without .inp")
    texts = inputs.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = outputs.read_text().splitlines()
    assert len(lines) >= 46
    for text, line in zip(texts, lines, strict=False):  # some files end with a delimiter, some do not
        assert tokenizer.encode(text, False, False) == [int(id) for id in line.split()], text
        assert tokenizer.decode(tokenizer.encode(text)) == text
