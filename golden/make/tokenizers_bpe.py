"""Golden data of byte-pair tokenizers and of vocabularies of every kind: what llama.cpp reads and gives.

    python golden/make/tokenizers_bpe.py --models vendor/llama.cpp/models

--models holds llama.cpp's `ggml-vocab-*.gguf` (they are in the source distribution of llama-cpp-python).

small.json.gz: a vocabulary made here, under every tokenizer.ggml.pre that llama.cpp knows:
    {"metadata", "texts", "special_texts", "models": {name: {"keys", "run"}}, "runs": [{"add_bos", "ids",
    ...}]}
"keys" change the metadata, "run" is an index into runs: many names mean the same.
vocabs.json.gz: llama.cpp's own vocabularies: special ids, digests of attributes and pieces, ids of the texts.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as capi
from llamacpp import LlamaCpp, producer
from tokenizers_bpe_vocab import SPECIALS, SPLITS, small_vocab
from tokenizers_other import tokens_digest, write_json, write_vocab
from tokenizers_other_text import MIXED, draw_texts

SEED = 1
_IDS = ("bos", "eos", "eot", "sep", "pad", "mask", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep")
_DNA = ("<dna>", "</dna>", "<oov>", "ACGTAC\ue000", "GATTAC\ue000", "TTTTTT\ue000", "CAAAAA\ue000")
_DNA_TEXTS = (
    "<dna>ACGTACGATTAC</dna>",
    "hello <dna>acgtacgattacTTTTTTc</dna> world",
    "<dna>ACGTACGGGGGG é c</dna><dna></dna><dna>GATT<dna>",
    "ACGTAC <dna>TTTTTT",
    "</dna> <dna",
)


def pre_names(source: Path) -> list[str]:
    """Every name that llama-vocab.cpp compares tokenizer.ggml.pre with."""
    return sorted(set(re.findall(r'tokenizer_pre == "([^"]+)"', source.read_text(encoding="utf-8"))))


class Reader(LlamaCpp):
    """What llama.cpp says of a vocabulary."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, vocab_only=True)

    def special_ids(self) -> dict[str, int | None]:
        ids = {name: getattr(capi, f"llama_vocab_{name}")(self._vocab) for name in _IDS}
        return {name: None if id < 0 else id for name, id in ids.items()}

    def flags(self) -> dict[str, bool]:
        return {
            name: bool(getattr(capi, f"llama_vocab_get_{name}")(self._vocab))
            for name in ("add_bos", "add_eos", "add_sep")
        }

    def eog_ids(self) -> list[int]:
        return [id for id in range(self.n_vocab) if capi.llama_vocab_is_eog(self._vocab, id)]

    def attrs(self) -> list[int]:
        return [capi.llama_vocab_get_attr(self._vocab, id) for id in range(self.n_vocab)]

    def texts(self) -> list[str]:
        return [capi.llama_vocab_get_text(self._vocab, id).decode() for id in range(self.n_vocab)]

    def piece(self, id: int) -> bytes:
        return _bytes(lambda buffer, size: capi.llama_token_to_piece(self._vocab, id, buffer, size, 0, True))

    def text_of(self, ids: Sequence[int]) -> str:
        array = (ctypes.c_int32 * len(ids))(*ids)
        return _bytes(
            lambda buffer, size: capi.llama_detokenize(self._vocab, array, len(ids), buffer, size, False, True)
        ).decode("utf-8", "replace")


def _bytes(fill: Callable[[Any, int], int]) -> bytes:
    size = 1 << 10
    while True:
        buffer = ctypes.create_string_buffer(size)
        n: int = fill(buffer, size)
        if n >= 0:
            return buffer.raw[:n]
        size = -n


def digest(items: Iterable[bytes]) -> str:
    """sha256 of byte strings, each ended by a NUL."""
    return hashlib.sha256(b"".join(item + b"\0" for item in items)).hexdigest()


def readable(piece: bytes) -> bytes:
    """Nothing for a token that llama.cpp shows as an error, since its text is not of the 256 letters."""
    return b"" if b"[UNK_BYTE_0x" in piece else piece


def run(reader: Reader, texts: Sequence[str], special: Sequence[str]) -> dict[str, Any]:
    plain = [reader.tokenize(text, False, False) for text in texts]
    return {
        "special_ids": reader.special_ids(),
        "flags": reader.flags(),
        "ids": plain,
        "text_of_ids": [reader.text_of(ids) for ids in plain],
        "ids_of_special": [reader.tokenize(text, True, True) for text in special],
        "ids_of_special_as_text": [reader.tokenize(text, False, False) for text in special],
    }


def models(pres: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Changes to the metadata of the small vocabulary, by the name of a case."""
    keys: dict[str, dict[str, Any]] = {f"pre {pre}": {"tokenizer.ggml.pre": pre} for pre in pres}
    # Under model "gpt2" llama.cpp stops at the first run of two spaces.
    keys["pre whitespace"] = {"tokenizer.ggml.model": "whitespace", "tokenizer.ggml.pre": "whitespace"}
    keys["whitespace lower case"] = keys["pre whitespace"] | {"tokenizer.ggml.normalizer.lowercase": True}
    keys["no pre"] = {}
    keys["gemma4"] = {"tokenizer.ggml.model": "gemma4"}
    keys["hybriddna"] = {"tokenizer.ggml.model": "hybriddna", "tokenizer.ggml.pre": "gpt-2"}
    keys["phi-3"] = {"general.name": "Phi-3 mini"}
    keys["modern-bert"] = {"general.name": "modern-bert", "tokenizer.ggml.add_eos_token": True}
    return keys


def make_small(out: Path, pres: Sequence[str]) -> None:
    rng = np.random.default_rng(SEED)
    metadata = small_vocab(rng)
    metadata["tokenizer.ggml.tokens"] += _DNA
    metadata["tokenizer.ggml.token_type"] += [1] * len(_DNA)
    texts = [*MIXED, *SPLITS, *_DNA_TEXTS, *draw_texts(rng, 40)]
    cases: dict[str, dict[str, Any]] = {}
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, keys in models(pres).items():
            path = Path(folder) / "small.gguf"
            write_vocab(path, metadata | keys)
            with Reader(path) as reader:
                found = run(reader, texts, SPECIALS)
            if found not in runs:
                runs.append(found)
            cases[name] = {"keys": keys, "run": runs.index(found)}
    data = {"metadata": metadata, "texts": texts, "special_texts": SPECIALS, "models": cases, "runs": runs}
    write_json(out / "small.json.gz", data)


def make_vocabs(out: Path, folder: Path) -> None:
    texts = [*MIXED, *SPLITS, *SPECIALS, *draw_texts(np.random.default_rng(SEED), 20)]
    vocabs: dict[str, Mapping[str, Any]] = {}
    for path in sorted(folder.glob("ggml-vocab-*.gguf")):
        with Reader(path) as reader:
            facts: dict[str, Any] = {
                "tokens_sha256": tokens_digest(reader.texts()),
                "attrs_sha256": digest(str(attr).encode() for attr in reader.attrs()),
                "pieces_sha256": digest(map(readable, map(reader.piece, range(reader.n_vocab)))),
                "eog_ids": reader.eog_ids(),
                "special_ids": reader.special_ids(),
                "flags": reader.flags(),
            }
            if capi.llama_vocab_type(reader._vocab) == capi.LLAMA_VOCAB_TYPE_BPE:
                facts |= run(reader, texts, SPECIALS)
        vocabs[path.name] = facts
    write_json(out / "vocabs.json.gz", {"texts": texts, "special_texts": SPECIALS, "vocabs": vocabs})


def main() -> None:
    parser = argparse.ArgumentParser(description="what llama.cpp reads of vocabularies, and its byte-pair ids")
    parser.add_argument("--models", type=Path, required=True, help="the folder of llama.cpp's ggml-vocab-*.gguf")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tokenizers" / "bpe")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    make_vocabs(args.out, args.models)
    make_small(args.out, pre_names(args.models.parent / "src" / "llama-vocab.cpp"))
    program, version = producer()
    facts = {
        "made_by": "golden/make/tokenizers_bpe.py",
        "producer": program,
        "version": version,
        "files": {"*.json.gz": {"seed": SEED, "tolerance": "exact"}},
    }
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
