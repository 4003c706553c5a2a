"""Golden data of the tokenizers other than byte-level BPE: the ids that llama.cpp gives.

    python golden/make/tokenizers_other.py --models vendor/llama.cpp/models --gemma gemma-3-270m-q4_k_m.gguf

--models holds llama.cpp's `ggml-vocab-*.gguf` with their `.inp` and `.out` files (they are in the source distribution
of llama-cpp-python). For what those do not cover, small vocabularies are made here: trained by the sentencepiece
package or drawn from a seed, written as GGUF for llama.cpp, and kept as JSON beside the ids. A data file holds

    {"metadata" or "vocab": ..., "runs": [{"add_special", "parse_special", "ids": [[...], ...]}]}

with one list of ids per text; the texts are its own ("texts") or those of texts.json.gz.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from gguf import GGUFWriter
from llamacpp import LlamaCpp, producer
from tokenizers_other_text import ENGLISH, MIXED, draw_texts
from tokenizers_other_vocab import SMALL_VOCABS

SEED = 1
VOCABS = ("llama-spm", "phi-3", "baichuan", "bert-bge", "nomic-bert-moe")
_DELIMITER = "\n__ggml_vocab_test__\n"
_RUNS = ((True, True), (False, False))


def read_pairs(models: Path, vocab: str) -> tuple[list[str], list[list[int]]]:
    """The texts of a vocabulary's .inp file and the ids of its .out file; nothing where it has none."""
    path = models / f"ggml-vocab-{vocab}.gguf.inp"
    if not path.exists():
        return [], []
    texts = path.read_text(encoding="utf-8").split(_DELIMITER)[:-1]
    lines = path.with_suffix(".out").read_text(encoding="utf-8").splitlines()
    return texts, [[int(id) for id in line.split()] for line in lines]


def write_vocab(path: Path, metadata: Mapping[str, Any]) -> None:
    """A GGUF file of only a vocabulary."""
    writer = GGUFWriter(path, "llama")
    for key, value in metadata.items():
        if key.endswith(".precompiled_charsmap"):
            writer.add_array(key, bytes(value))
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(path: Path, texts: Sequence[str]) -> list[dict[str, Any]]:
    with LlamaCpp(path, vocab_only=True) as llama:
        return [
            {"add_special": add, "parse_special": parse, "ids": [llama.tokenize(t, add, parse) for t in texts]}
            for add, parse in _RUNS
        ]


def write_json(path: Path, data: object) -> None:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.encode())


def tokens_digest(tokens: Iterable[str]) -> str:
    """sha256 of the token texts, each ended by a NUL: says whether a vocabulary is the one that was used."""
    return hashlib.sha256("".join(token + "\0" for token in tokens).encode()).hexdigest()


def digest_of(path: Path) -> str:
    from llama_cpp import llama_cpp as capi

    params = capi.llama_model_default_params()
    params.vocab_only = True
    model = capi.llama_model_load_from_file(str(path).encode(), params)
    vocab = capi.llama_model_get_vocab(model)
    n = capi.llama_vocab_n_tokens(vocab)
    digest = tokens_digest(capi.llama_vocab_get_text(vocab, id).decode() for id in range(n))
    capi.llama_model_free(model)
    return digest


def make_public(out: Path, models: Path, gemma: Path) -> None:
    """Ids of llama.cpp's own vocabularies and of Gemma 3, over the shared texts."""
    pairs = {vocab: read_pairs(models, vocab) for vocab in VOCABS}
    inputs = list(dict.fromkeys(text for texts, _ in pairs.values() for text in texts))
    drawn = draw_texts(np.random.default_rng(SEED), 200)
    texts = [*inputs, *MIXED, *drawn, ENGLISH, ENGLISH.replace("\n", " "), *ENGLISH.split("\n")]
    write_json(out / "texts.json.gz", texts)
    paths = {vocab: models / f"ggml-vocab-{vocab}.gguf" for vocab in VOCABS} | {"gemma-3-270m": gemma}
    for vocab, path in paths.items():
        runs = run(path, texts)
        for text, ids in zip(*pairs.get(vocab, ([], [])), strict=True):
            if runs[1]["ids"][texts.index(text)] != ids:
                raise ValueError(f"{vocab}: llama.cpp's ids of {text!r} are not those of its .out file")
        data = {"vocab": path.name, "tokens_sha256": digest_of(path), "runs": runs}
        write_json(out / f"{vocab}.json.gz", data)


def make_small(out: Path) -> None:
    """Vocabularies made here, with texts that suit them, and their ids."""
    with tempfile.TemporaryDirectory() as folder:
        for name, make in SMALL_VOCABS.items():
            path = Path(folder) / f"{name}.gguf"
            metadata, texts = make(np.random.default_rng(SEED))
            write_vocab(path, metadata)
            write_json(out / f"small-{name}.json.gz", {"metadata": metadata, "texts": texts, "runs": run(path, texts)})


def main() -> None:
    parser = argparse.ArgumentParser(description="ids of the tokenizers other than byte-level BPE")
    parser.add_argument("--models", type=Path, required=True, help="the folder of llama.cpp's ggml-vocab-*.gguf")
    parser.add_argument("--gemma", type=Path, required=True, help="gemma-3-270m-q4_k_m.gguf")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tokenizers" / "other")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    make_small(args.out)
    make_public(args.out, args.models, args.gemma)
    program, version = producer()
    note = f"small-spm-trained and small-ugm*: vocabularies trained by sentencepiece {sentencepiece.__version__}"
    facts = {
        "made_by": "golden/make/tokenizers_other.py",
        "producer": program,
        "version": version,
        "files": {"*.json.gz": {"seed": SEED, "tolerance": "exact", "note": note}},
    }
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
