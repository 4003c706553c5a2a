"""Golden data of single operations from ggml's CPU backend.

    python golden/make/ops.py [--out golden/ops] [--seed 1]

activations.npz  x (R, 512), names; q8_0, q8_1, q8_K, f16, bf16: the bytes of each row as the backend rounds it
vec_dot.npz      x_K (X, K) and, per weight type, TYPE/w_K bytes (R, ...), TYPE/xq_K bytes (X, ...), TYPE/y_K (X, R)
dequantize.npz   TYPE/blocks (n, bytes per block), TYPE/values (n, weights per block)
graph.npz        CASE/a, /b (further inputs), /out and `index`: JSON list of {case, op, parameters}
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ops_graph
from ggml_api import ByteArray, FloatArray, Ggml
from llamacpp import producer

WEIGHT_TYPES = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "IQ4_NL", "IQ4_XS", "MXFP4",
)  # fmt: skip
LENGTHS = (256, 512, 2048)
ROW = 512
# byte offsets of the float16 scales in a block
SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
}  # fmt: skip
# smallest and largest denormal, smallest normal, largest, both infinities, NaN, both zeros, minus one
EXTREME_HALVES = (0x0001, 0x03FF, 0x0400, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x0000, 0x8000, 0xBC00)
EXTREME_EXPONENTS = (0, 1, 2, 126, 127, 128, 253, 254, 255)


def activation_rows(rng: np.random.Generator) -> tuple[list[str], FloatArray]:
    """Rows that reach every branch of the rounding: maxima, ties, zeros and the ends of the float range."""
    normal = rng.standard_normal((6, ROW))
    halves = rng.integers(-127, 127, ROW) + 0.5
    halves[::32] = 127.0  # block maximum 127: the scale is exactly one, so every other value is a tie
    outlier = normal[3].copy()
    outlier[::64] = 1000.0
    both = np.where(np.arange(ROW) % 2, 3.0, -3.0)
    first_negative = normal[4].copy()
    first_negative[[5, 40, 261]], first_negative[[9, 41, 300]] = -9.0, 9.0
    rows = {
        "normal": normal[0], "normal_small": normal[1] * 1e-3, "normal_large": normal[2] * 1e3,
        "uniform": rng.uniform(-1, 1, ROW), "all_positive": np.abs(normal[5]), "outlier": outlier,
        "ties": halves, "ties_scaled": halves * 0.0078125,
        "ties_negative_maximum": np.where(halves == 127, -127, halves),
        "alternating": both, "equal_maxima": first_negative, "constant": np.full(ROW, 0.7),
        "one_hot": np.eye(1, ROW, 77)[0], "zero": np.zeros(ROW), "minus_zero": -np.zeros(ROW),
        "zero_blocks": np.where(np.arange(ROW) // 32 % 2, normal[0], 0.0),
        "tiny": normal[1] * 1e-30, "denormal": normal[2] * 1e-41, "smallest": np.eye(1, ROW, 3)[0] * 1.5e-45,
        "half_limit": normal[0] * 3e6, "huge": normal[3] * 1e30,
        "largest": np.where(np.arange(ROW) % 3, 3.4e38, -3.4e38),
    }  # fmt: skip
    return list(rows), np.stack([row.astype(np.float32) for row in rows.values()])


def activations(ggml: Ggml, seed: int) -> dict[str, npt.NDArray[Any]]:
    names, x = activation_rows(np.random.default_rng(seed))
    packed = {
        kind.lower().replace("_k", "_K"): ggml.round_activations(kind, x)
        for kind in ("Q8_0", "Q8_1", "Q8_K", "F16", "BF16")
    }
    return {"names": np.array(names), "x": x, **packed}


def vec_dots(ggml: Ggml, seed: int) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for n in LENGTHS:
        w = rng.standard_normal((8, n)).astype(np.float32) / np.float32(np.sqrt(n))
        w[7] = 0
        x = rng.standard_normal((4, n)).astype(np.float32)
        x[1] *= 20
        x[2, ::97] *= 50
        x[3] = 0
        arrays[f"x_{n}"] = x
        for kind in WEIGHT_TYPES:
            packed = w.view(np.uint8) if kind == "F32" else ggml.quantize(kind, w)
            rounded = ggml.round_activations(ggml.dot_kind(kind), x)
            arrays[f"{kind}/w_{n}"] = packed
            arrays[f"{kind}/xq_{n}"] = rounded
            arrays[f"{kind}/y_{n}"] = ggml.dots(kind, packed, rounded, n)
    return arrays


def _blocks(ggml: Ggml, kind: str, rng: np.random.Generator) -> ByteArray:
    """Random payloads under sane scales, one block of zeros, then random payloads under extreme scales."""
    size = ggml.row_bytes(kind, ggml.block_size(kind))
    if kind in ("F16", "BF16"):
        return rng.integers(0, 256, (4096, 2), np.uint8)
    sane = rng.integers(0, 256, (24, size), np.uint8)
    if kind == "MXFP4":
        sane[:, 0] = rng.integers(110, 140, len(sane))
        extreme = rng.integers(0, 256, (len(EXTREME_EXPONENTS), size), np.uint8)
        extreme[:, 0] = EXTREME_EXPONENTS
        return np.concatenate([sane, np.zeros((1, size), np.uint8), extreme])
    for offset in SCALES[kind]:
        scale = (rng.standard_normal(len(sane)) * 0.05).astype("<f2")
        sane[:, offset : offset + 2] = scale.view(np.uint8).reshape(-1, 2)
    patched = []
    for offset in SCALES[kind]:
        extreme = sane[: len(EXTREME_HALVES)].copy()
        extreme[:, offset : offset + 2] = np.array(EXTREME_HALVES, "<u2").view(np.uint8).reshape(-1, 2)
        patched.append(extreme)
    return np.concatenate([sane, np.zeros((1, size), np.uint8), *patched])


def dequantized(ggml: Ggml, seed: int) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for kind in WEIGHT_TYPES[1:]:
        arrays[f"{kind}/blocks"] = _blocks(ggml, kind, rng)
        arrays[f"{kind}/values"] = ggml.dequantize(kind, arrays[f"{kind}/blocks"])
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of single operations from ggml's CPU backend")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "ops")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    ggml = Ggml()
    graph, measured = ops_graph.cases(ggml, args.seed)
    np.savez_compressed(args.out / "activations.npz", **activations(ggml, args.seed))
    np.savez_compressed(args.out / "vec_dot.npz", **vec_dots(ggml, args.seed))
    np.savez_compressed(args.out / "dequantize.npz", **dequantized(ggml, args.seed))
    np.savez_compressed(args.out / "graph.npz", **graph)
    name, version = producer()
    notes: dict[str, dict[str, Any]] = {
        "activations.npz": {"tolerance": "exact", "note": "from_float of the CPU backend, AVX-512 build"},
        "vec_dot.npz": {"tolerance": {"nmse": 1e-12}, "note": "vec_dot of the CPU backend, AVX-512 build"},
        "dequantize.npz": {"tolerance": "exact", "note": "to_float; any NaN equals any NaN"},
        "graph.npz": {
            "tolerance": {"nmse": 1e-12, "rope_nmse": 1e-9, "gelu_table_nmse": 1e-6}, "measured": measured,
            "note": "GELU (tanh and quick) goes through a half-precision table in ggml; its rope multiplies the "
                    "angle up in float32, so far positions carry that error",
        },
    }  # fmt: skip
    files = {file: {"seed": args.seed, **entry} for file, entry in notes.items()}
    facts = {"made_by": "golden/make/ops.py", "producer": name, "version": version, "files": files}
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
