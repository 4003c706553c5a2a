"""Reads golden/tokenizers/other: vocabularies, texts and the ids that llama.cpp gives them."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ref_engine.text.tokenizer.base import Tokenizer
from ref_engine.text.tokenizer.load import load_tokenizer

FOLDER = Path(__file__).parents[2] / "golden" / "tokenizers" / "other"
CACHE = Path(os.environ.get("REF_ENGINE_CACHE", Path.home() / ".cache" / "ref-engine"))
CHARSMAP = "tokenizer.ggml.precompiled_charsmap"


def read(name: str) -> Any:
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


@cache
def small_metadata(name: str) -> dict[str, Any]:
    """The metadata of a vocabulary that is kept with its ids; a copy may be changed."""
    metadata: dict[str, Any] = read(f"small-{name}")["metadata"]
    if CHARSMAP in metadata:
        metadata[CHARSMAP] = np.array(metadata[CHARSMAP], np.uint8)
    return metadata


@cache
def small_tokenizer(name: str) -> Tokenizer:
    return load_tokenizer(small_metadata(name))


def cached_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a file in the cache; the test is skipped where it is missing, and fails if it is
    another.
    """
    golden = read(name)
    folder = "models" if name.startswith("gemma") else "vocabs"
    path = CACHE / folder / golden["vocab"]
    if not path.exists():
        pytest.skip(f"{folder}/{golden['vocab']} is not in {CACHE}")
    return _checked(path, golden["tokens_sha256"])


@cache
def _checked(path: Path, digest: str) -> Tokenizer:
    tokenizer = load_tokenizer(path)
    joined = "".join(token + "\0" for token in tokenizer.vocab.tokens)
    assert hashlib.sha256(joined.encode()).hexdigest() == digest, f"{path} is not the vocabulary of the golden data"
    return tokenizer


def check_small(name: str) -> None:
    """Every text of a small vocabulary gives llama.cpp's ids."""
    golden = read(f"small-{name}")
    _check(small_tokenizer(name), golden["texts"], golden["runs"])


def check_cached(name: str) -> None:
    """Every shared text gives llama.cpp's ids with a vocabulary from the cache."""
    _check(cached_tokenizer(name), read("texts"), read(name)["runs"])


def _check(tokenizer: Tokenizer, texts: list[str], runs: list[dict[str, Any]]) -> None:
    assert len(texts) > 100 and len(runs) == 2
    for run in runs:
        assert len(run["ids"]) == len(texts)
        for text, ids in zip(texts, run["ids"], strict=True):
            got = tokenizer.encode(text, add_special=run["add_special"], parse_special=run["parse_special"])
            assert got == ids, text


def check_round_trip(tokenizer: Tokenizer, texts: list[str]) -> None:
    """decode(encode(x)) == x for texts without U+2581, which decodes as a space, or a token that eats white
    space.
    """
    checked = 0
    for text in texts:
        if "▁" not in text and "<|" not in text and "</s>" not in text:
            for special in (True, False):
                ids = tokenizer.encode(text, add_special=special, parse_special=special)
                assert tokenizer.decode(ids) == text
            stream = tokenizer.stream(special=True, at_start=True)
            ids = tokenizer.encode(text, add_special=False)
            assert "".join(stream.push(id) for id in ids) + stream.flush() == text
            checked += 1
    assert checked > 50
