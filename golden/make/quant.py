"""Golden data of the block types: what their bytes mean, the dot products ggml takes with them, how ggml makes them.

    python golden/make/quant.py [--out golden/quant] [--seed 7] [--model SmolLM2-135M-Instruct.Q4_1.gguf]

dequantize.npz   TYPE/blocks (n, bytes per block), TYPE/values (n, weights per block)
vec_dot.npz      x (X, K), and per type TYPE/w bytes (R, ...), TYPE/xq bytes (X, ...), TYPE/y (X, R)
quantize.npz     names, x (R, K) float32, importance (K,); per type TYPE/plain, TYPE/weighted (R, ...) bytes
smollm2.json     tensor -> TYPE -> sha256 of the tensor's bytes, dequantised to float32 and quantised to TYPE

The first two have only the types that golden/ops does not have. Their blocks are random bytes under sane scales, one
block of zeros, random bytes under extreme scales, and for types with a codebook blocks that walk through all of it.
Without --model the last file is left as it is.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from codebooks import index_blocks
from ggml_api import ByteArray, FloatArray, Ggml
from llamacpp import producer
from ops import EXTREME_HALVES

# byte offset of the float16 scale in a block
SCALE = {
    "IQ1_S": 0, "IQ2_XXS": 0, "IQ2_XS": 0, "IQ2_S": 0, "IQ3_XXS": 0, "IQ3_S": 0, "TQ1_0": 52, "TQ2_0": 64,
    "Q1_0": 0, "Q2_0": 0,
}  # fmt: skip
DOT_TYPES = (*SCALE, "IQ1_M", "NVFP4")
TYPES = (*DOT_TYPES, "Q8_K")
CODEBOOKS = ("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")
LENGTH = 1024
QUANTISERS = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS",
    "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0",
)  # fmt: skip
QUANTISED_ROW = 512
CODEBOOK_SEARCH = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")  # abort where a square overflows
NEED_IMPORTANCE = ("IQ1_S", "IQ2_XXS", "IQ2_XS")
MODEL_TENSORS = ("blk.5.attn_q.weight", "blk.5.ffn_down.weight")
MODEL_ROWS = 64


def _set_scales(kind: str, blocks: ByteArray, halves: npt.NDArray[np.uint16]) -> None:
    """Write one float16 pattern per block where the type keeps its scale."""
    if kind == "IQ1_M":  # nibble k of the pattern is the top nibble of word k
        for k in range(4):
            nibble = (halves >> 4 * k & 15).astype(np.uint8)
            blocks[:, 49 + 2 * k] = blocks[:, 49 + 2 * k] & 15 | nibble << 4
    else:
        offset = SCALE[kind]
        blocks[:, offset : offset + 2] = halves.astype("<u2").view(np.uint8).reshape(-1, 2)


def sane_blocks(ggml: Ggml, kind: str, n: int, rng: np.random.Generator) -> ByteArray:
    blocks = rng.integers(0, 256, (n, ggml.row_bytes(kind, ggml.block_size(kind))), np.uint8)
    if kind == "NVFP4":
        blocks[:, :4] = rng.integers(30, 90, (n, 4))
    elif kind == "Q8_K":
        blocks[:, :4] = (rng.standard_normal(n) * 0.05).astype("<f4").view(np.uint8).reshape(-1, 4)
    else:
        _set_scales(kind, blocks, (rng.standard_normal(n) * 0.05).astype("<f2").view(np.uint16))
    return blocks


def _extreme_blocks(kind: str, sane: ByteArray) -> ByteArray:
    if kind == "NVFP4":  # every scale there is
        blocks = np.resize(sane, (64, sane.shape[1]))
        blocks[:, :4] = np.arange(256, dtype=np.uint8).reshape(64, 4)
        return blocks
    blocks = sane[: len(EXTREME_HALVES)].copy()
    if kind == "Q8_K":
        with np.errstate(over="ignore"):
            scales = np.array([1e-45, 1.17549435e-38, 3e38, np.inf, -np.inf, np.nan, 0.0, -0.0, -1.0, 1e-40], "<f4")
        blocks[:, :4] = scales.view(np.uint8).reshape(-1, 4)
    else:
        _set_scales(kind, blocks, np.array(EXTREME_HALVES, np.uint16))
    return blocks


def _values(ggml: Ggml, kind: str, blocks: ByteArray) -> FloatArray:
    if kind != "Q8_K":
        return ggml.dequantize(kind, blocks)
    out = np.zeros((len(blocks), 256), np.float32)  # has no to_float in the table of traits
    ggml.base.dequantize_row_q8_K(
        ctypes.c_void_p(blocks.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(out.size)
    )
    return out


def dequantized(ggml: Ggml, seed: int) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for kind in TYPES:
        sane = sane_blocks(ggml, kind, 12, rng)
        parts = [sane, np.zeros_like(sane[:1]), _extreme_blocks(kind, sane)]
        if kind in CODEBOOKS:
            parts.append(index_blocks(ggml, kind))
        blocks = np.ascontiguousarray(np.concatenate(parts))
        arrays[f"{kind}/blocks"], arrays[f"{kind}/values"] = blocks, _values(ggml, kind, blocks)
    return arrays


def vec_dots(ggml: Ggml, seed: int) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4, LENGTH)).astype(np.float32)
    x[1] *= 20
    x[2, ::97] *= 50
    x[3] = 0
    arrays: dict[str, npt.NDArray[Any]] = {"x": x}
    for kind in DOT_TYPES:
        per_row = LENGTH // ggml.block_size(kind)
        w = sane_blocks(ggml, kind, 6 * per_row, rng).reshape(6, -1)
        rounded = ggml.round_activations(ggml.dot_kind(kind), x)
        arrays[f"{kind}/w"], arrays[f"{kind}/xq"] = w, rounded
        arrays[f"{kind}/y"] = ggml.dots(kind, w, rounded, LENGTH)
    return arrays


def weight_rows(seed: int) -> tuple[list[str], FloatArray]:
    """Rows of weights that reach the branches of the quantisers."""
    rng = np.random.default_rng(seed)
    n = QUANTISED_ROW

    def normal() -> npt.NDArray[np.float64]:
        return rng.standard_normal(n)

    signs = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    outlier = normal()
    outlier[::50] *= 40
    one_hot = np.zeros(n)
    one_hot[5], one_hot[300] = 2, -3
    rows = {
        "normal": normal(), "normal_again": normal(), "small": normal() * 0.05, "laplace": rng.laplace(size=n),
        "lognormal": np.exp(normal()) * signs, "outlier": outlier, "offset": normal() + 5, "positive": np.abs(normal()),
        "negative": -np.abs(normal()), "ternary": rng.integers(-1, 2, n) * 0.03, "whole": rng.integers(-8, 8, n) * 1.0,
        "zero_sixteens": normal() * (rng.random(n // 16) < 0.5).repeat(16),
        "zero_thirty_twos": normal() * (rng.random(n // 32) < 0.5).repeat(32),
        "zero_half": np.where(np.arange(n) < n // 2, 0.0, normal()), "constant": np.full(n, 0.7),
        "alternating": np.where(np.arange(n) % 2, 0.7, -0.7), "one_hot": one_hot, "zero": np.zeros(n),
        "minus_zero": -np.zeros(n), "both_zeros": signs * 0.0, "huge": normal() * 1e6, "e-8": normal() * 2e-8,
        "e-15": normal() * 1e-15, "e-20": normal() * 1e-20, "denormal": normal() * 1e-40,
        "half_limit": normal() * 3e5, "scales_apart": normal() * 10.0 ** rng.uniform(-12, 4, n // 32).repeat(32),
        "overflowing": normal() * 10.0 ** rng.uniform(-30, 20, n // 32).repeat(32),
    }  # fmt: skip
    return list(rows), np.stack([row.astype(np.float32) for row in rows.values()])


def quantised(ggml: Ggml, seed: int) -> dict[str, npt.NDArray[Any]]:
    names, x = weight_rows(seed)
    importance = (np.random.default_rng(seed + 1).random(QUANTISED_ROW) ** 4 * 10).astype(np.float32)
    importance[3:7] = 0
    arrays: dict[str, npt.NDArray[Any]] = {"names": np.array(names), "x": x, "importance": importance}
    for kind in QUANTISERS:
        usable = x[: names.index("overflowing")] if kind in CODEBOOK_SEARCH else x
        if kind not in NEED_IMPORTANCE:
            arrays[f"{kind}/plain"] = ggml.quantize(kind, usable)
        arrays[f"{kind}/weighted"] = ggml.quantize(kind, usable, importance)
    return arrays


def model_hashes(ggml: Ggml, path: Path) -> dict[str, dict[str, str]]:
    """sha256 of the first rows of two tensors in every type whose blocks their rows are made of."""
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors if t.name in MODEL_TENSORS}
    hashes: dict[str, dict[str, str]] = {}
    for name in MODEL_TENSORS:
        rows = gguf.quants.dequantize(tensors[name].data[:MODEL_ROWS], tensors[name].tensor_type).astype(np.float32)
        hashes[name] = {
            kind: hashlib.sha256(ggml.quantize(kind, rows).tobytes()).hexdigest()
            for kind in QUANTISERS
            if rows.shape[1] % ggml.block_size(kind) == 0 and kind not in NEED_IMPORTANCE
        }
    return hashes


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of the block types from ggml")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "quant")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    ggml = Ggml()
    np.savez_compressed(args.out / "dequantize.npz", **dequantized(ggml, args.seed))
    np.savez_compressed(args.out / "vec_dot.npz", **vec_dots(ggml, args.seed))
    np.savez_compressed(args.out / "quantize.npz", **quantised(ggml, args.seed))
    if args.model:
        hashes = json.dumps(model_hashes(ggml, args.model), indent=1)
        (args.out / "smollm2.json").write_text(hashes + "\n")
    name, version = producer()
    notes: dict[str, dict[str, Any]] = {
        "dequantize.npz": {"tolerance": "exact", "note": "to_float; any NaN equals any NaN"},
        "vec_dot.npz": {"tolerance": {"nmse": 1e-12}, "note": "vec_dot of the CPU backend, AVX-512 build"},
        "quantize.npz": {"tolerance": "exact", "note": "ggml_quantize_chunk of a build without fused multiply-add"},
        "smollm2.json": {"tolerance": "exact", "note": "as quantize.npz, of SmolLM2-135M-Instruct Q4_1 dequantised"},
    }
    files = {file: {"seed": args.seed, **entry} for file, entry in notes.items()}
    facts = {"made_by": "golden/make/quant.py", "producer": name, "version": version, "files": files}
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
