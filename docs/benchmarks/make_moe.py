"""Write a mixture of experts of about 1 GB in Q4_K with random weights: 128 experts, 8 of them used, 8 layers.

    python docs/benchmarks/make_moe.py VOCABULARY.gguf moe.gguf [--layers N] [--seed N]
    ref-engine bench moe.gguf --against llama-cpp --against ik-llama

The vocabulary is taken from any GGUF file. Blocks are drawn, not quantised, and written expert by expert, so that it
takes seconds and little memory. What the model says is noise; what it costs is not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ref_engine.files.gguf import open_gguf
from ref_engine.files.types import GGMLType
from ref_engine.files.writer import TensorData, write_gguf

ARCHITECTURE = "qwen3moe"
WIDTH, HIDDEN, EXPERTS, USED = 1024, 512, 128, 8
HEADS, HEADS_KV, HEAD = 16, 4, 64
BLOCK = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("q", "u1", 128)])  # Q4_K
SPREAD = 170  # of d * scale * q - dmin * min for d = 1, with scale and min in 0..63, q in 0..15 and dmin = 7.5

Row = tuple[str, tuple[int, ...], GGMLType, TensorData]


def drawn(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.uint8]:
    """Q4_K blocks whose weights have mean 0 and a spread of 1 / sqrt(columns): uint8 (bytes,)."""
    raw = np.frombuffer(rng.bytes(rows * columns // 256 * BLOCK.itemsize), np.uint8).copy()
    blocks = raw.view(BLOCK)
    blocks["d"] = 1 / (SPREAD * np.sqrt(columns))
    blocks["dmin"] = 7.5 / (SPREAD * np.sqrt(columns))
    return raw


def stacked(rng: np.random.Generator, rows: int, columns: int) -> Iterator[NDArray[np.uint8]]:
    for _ in range(EXPERTS):
        yield drawn(rng, rows, columns)


def matrix(rng: np.random.Generator, name: str, rows: int, columns: int) -> Row:
    return f"{name}.weight", (rows, columns), GGMLType.Q4_K, partial(drawn, rng, rows, columns)


def stack(rng: np.random.Generator, name: str, rows: int, columns: int) -> Row:
    return f"{name}.weight", (EXPERTS, rows, columns), GGMLType.Q4_K, partial(stacked, rng, rows, columns)


def ones(name: str, n: int) -> Row:
    return f"{name}.weight", (n,), GGMLType.F32, np.ones(n, np.float32)


def layer(rng: np.random.Generator, i: int) -> Iterator[Row]:
    at = f"blk.{i}."
    make: Callable[[str, int, int], Row] = partial(matrix, rng)
    yield from (ones(at + "attn_norm", WIDTH), ones(at + "ffn_norm", WIDTH))
    yield from (ones(at + "attn_q_norm", HEAD), ones(at + "attn_k_norm", HEAD))
    yield from (make(at + "attn_q", HEADS * HEAD, WIDTH), make(at + "attn_output", WIDTH, HEADS * HEAD))
    yield from (make(at + f"attn_{n}", HEADS_KV * HEAD, WIDTH) for n in "kv")
    router = rng.standard_normal((EXPERTS, WIDTH), np.float32) / np.float32(np.sqrt(WIDTH))
    yield f"{at}ffn_gate_inp.weight", router.shape, GGMLType.F32, router
    yield from (stack(rng, at + f"ffn_{n}_exps", HIDDEN, WIDTH) for n in ("gate", "up"))
    yield stack(rng, at + "ffn_down_exps", WIDTH, HIDDEN)


def settings(layers: int) -> dict[str, object]:
    values = {
        "block_count": layers,
        "context_length": 4096,
        "embedding_length": WIDTH,
        "feed_forward_length": HIDDEN,
        "expert_feed_forward_length": HIDDEN,
        "expert_count": EXPERTS,
        "expert_used_count": USED,
        "attention.head_count": HEADS,
        "attention.head_count_kv": HEADS_KV,
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
    }
    name = {"general.architecture": ARCHITECTURE, "general.name": "random mixture"}
    return name | {f"{ARCHITECTURE}.{key}": value for key, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    with open_gguf(args.vocabulary) as source:
        keys = [key for key in source.metadata if key.startswith("tokenizer.ggml.")]
        if "tokenizer.ggml.tokens" not in keys:
            parser.error(f"{args.vocabulary} has no vocabulary")
        words = {key: source.metadata[key] for key in keys}
        types = {key: source.types[key] for key in keys}
    n_vocab = len(source.metadata["tokenizer.ggml.tokens"])  # type: ignore[arg-type]
    rows = [matrix(rng, "token_embd", n_vocab, WIDTH), ones("output_norm", WIDTH)]
    rows += [row for i in range(args.layers) for row in layer(rng, i)]
    write_gguf(args.out, settings(args.layers) | words, rows, types=types)


if __name__ == "__main__":
    main()
