"""Golden data of the block types: what their bytes mean, and the dot products that ggml takes with them.

    python golden/make/quant.py [--out golden/quant] [--seed 7]

dequantize.npz   TYPE/blocks (n, bytes per block), TYPE/values (n, weights per block)
vec_dot.npz      x (X, K), and per type TYPE/w bytes (R, ...), TYPE/xq bytes (X, ...), TYPE/y (X, R)

Only the types that golden/ops does not have. The blocks are random bytes under sane scales, one block of zeros, random
bytes under extreme scales, and for types with a codebook blocks that walk through all of it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from pathlib import Path
from typing import Any

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


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of the block types from ggml")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "quant")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    ggml = Ggml()
    np.savez_compressed(args.out / "dequantize.npz", **dequantized(ggml, args.seed))
    np.savez_compressed(args.out / "vec_dot.npz", **vec_dots(ggml, args.seed))
    name, version = producer()
    notes: dict[str, dict[str, Any]] = {
        "dequantize.npz": {"tolerance": "exact", "note": "to_float; any NaN equals any NaN"},
        "vec_dot.npz": {"tolerance": {"nmse": 1e-12}, "note": "vec_dot of the CPU backend, AVX-512 build"},
    }
    files = {file: {"seed": args.seed, **entry} for file, entry in notes.items()}
    facts = {"made_by": "golden/make/quant.py", "producer": name, "version": version, "files": files}
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
