"""The one-operation graphs of ops.py: inputs, parameters, ggml's result, and its distance from float64 arithmetic."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from ggml_api import FloatArray, Ggml, as_float

Array = npt.NDArray[Any]
Double = npt.NDArray[np.float64]
ROPE_NORM, ROPE_NEOX = 0, 2
POSITIONS = (0, 1, 2, 17, 63, 64, 1000, 8191, 32768, 100000)


def nmse(a: Array, b: Array) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a - b) ** 2).sum() / (b**2).sum())


def _unary(ggml: Ggml, function: str, *inputs: FloatArray, parameters: tuple[float, ...] = ()) -> FloatArray:
    def build(library: ctypes.CDLL, context: Any, tensors: list[Any]) -> int:
        call = getattr(library, f"ggml_{function}")
        call.restype = ctypes.c_void_p
        return int(call(context, *tensors, *map(as_float, parameters)))

    return ggml.compute(list(inputs), build)


def _soft_max(ggml: Ggml, x: FloatArray, mask: Array | None, scale: float, max_bias: float) -> FloatArray:
    def build(library: ctypes.CDLL, context: Any, tensors: list[Any]) -> int:
        call = library.ggml_soft_max_ext
        call.restype = ctypes.c_void_p
        return int(call(context, *tensors, as_float(scale), as_float(max_bias)))

    return ggml.compute([x, mask], build)


def _rope(ggml: Ggml, x: FloatArray, positions: Array, factors: Array | None, p: dict[str, Any]) -> FloatArray:
    floats = ("freq_base", "freq_scale", "ext_factor", "attn_factor", "beta_fast", "beta_slow")

    def build(library: ctypes.CDLL, context: Any, tensors: list[Any]) -> int:
        call = library.ggml_rope_ext
        call.restype = ctypes.c_void_p
        return int(call(context, *tensors, p["n_dims"], p["mode"], p["n_ctx_orig"], *(as_float(p[k]) for k in floats)))

    return ggml.compute([x, positions.astype(np.int32), factors], build)


def _activation_truth() -> dict[str, Callable[[Double], Double]]:
    erf = np.vectorize(math.erf)
    return {
        "silu": lambda x: x / (1 + np.exp(-x)),
        "gelu": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x))),
        "gelu_erf": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
        "gelu_quick": lambda x: x / (1 + np.exp(-1.702 * x)),
        "tanh": np.tanh,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "softplus": lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
    }


ROPE_CASES: dict[str, dict[str, Any]] = {
    "norm": {},
    "neox": {"mode": ROPE_NEOX},
    "norm_partial": {"n_dims": 40},
    "neox_partial": {"mode": ROPE_NEOX, "n_dims": 40},
    "norm_linear": {"freq_scale": 0.25},
    "neox_base": {"mode": ROPE_NEOX, "freq_base": 1e6},
    "norm_factors": {"factors": True, "freq_base": 5e5},
    "neox_factors": {"mode": ROPE_NEOX, "factors": True, "attn_factor": 1.19},
    "norm_yarn": {"freq_scale": 0.25, "ext_factor": 1.0, "n_ctx_orig": 2048},
    "neox_yarn": {
        "mode": ROPE_NEOX,
        "freq_scale": 0.125,
        "ext_factor": 1.0,
        "n_ctx_orig": 4096,
        "attn_factor": 0.8,
    },
    "norm_yarn_betas": {
        "freq_scale": 0.25,
        "ext_factor": 0.5,
        "n_ctx_orig": 2048,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
    },
}


def cases(ggml: Ggml, seed: int) -> tuple[dict[str, Array], dict[str, float]]:
    """All cases as arrays for graph.npz, and ggml's NMSE against float64 for the activations."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    index: list[dict[str, Any]] = []
    measured: dict[str, float] = {}

    def add(case: str, op: str, out: FloatArray, parameters: dict[str, Any], **inputs: Array) -> None:
        arrays.update({f"{case}/{key}": value for key, value in inputs.items()}, **{f"{case}/out": out})
        index.append({"case": case, "op": op, **parameters})

    rows = rng.standard_normal((6, 256)).astype(np.float32)
    rows[1] *= 1e-4
    rows[2] *= 1e4
    rows[3] = 0
    rows[4] += 3
    odd = rng.standard_normal((3, 77)).astype(np.float32)
    for op in ("rms_norm", "norm", "l2_norm"):
        for label, x in (("rows", rows), ("odd", odd)):
            for eps in (1e-5, 1e-6):
                add(f"{op}_{label}_{eps:g}", op, _unary(ggml, op, x, parameters=(eps,)), {"eps": eps}, a=x)

    x = np.concatenate([np.linspace(-12, 12, 961), rng.standard_normal(63) * 3]).astype(np.float32)
    gate = rng.standard_normal(len(x)).astype(np.float32)
    for op, truth in _activation_truth().items():
        out = _unary(ggml, op, x)
        add(op, op, out, {}, a=x)
        measured[f"{op}_from_float64_nmse"] = nmse(out, truth(x.astype(np.float64)))
    for op in ("swiglu_split", "geglu_split", "geglu_erf_split"):
        add(op, op, _unary(ggml, op, x, gate), {}, a=x, b=gate)

    scores = rng.standard_normal((4, 7, 40)).astype(np.float32) * 6
    mask = np.where(np.arange(40) <= np.arange(7)[:, None] + 20, 0, -np.inf).astype(np.float32)
    for label, used, scale, bias in (
        ("plain", None, 1.0, 0.0),
        ("scaled", None, 0.125, 0.0),
        ("masked", mask, 0.125, 0.0),
        ("alibi", mask + np.where(mask == 0, -np.abs(np.arange(40.0) - 20), 0), 0.125, 8.0),
    ):
        used = None if used is None else used.astype(np.float32)
        inputs = {"a": scores} if used is None else {"a": scores, "b": used}
        add(
            f"soft_max_{label}",
            "soft_max",
            _soft_max(ggml, scores, used, scale, bias),
            {"scale": scale, "max_bias": bias},
            **inputs,
        )

    positions = np.array(POSITIONS, np.int32)
    heads = rng.standard_normal((len(POSITIONS), 3, 64)).astype(np.float32)
    for label, change in ROPE_CASES.items():
        p = {
            "n_dims": 64,
            "mode": ROPE_NORM,
            "n_ctx_orig": 0,
            "freq_base": 10000.0,
            "freq_scale": 1.0,
            "ext_factor": 0.0,
            "attn_factor": 1.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            **change,
        }
        factors = (1 + np.abs(rng.standard_normal(32))).astype(np.float32) if p.pop("factors", False) else None
        inputs = {"a": heads, "positions": positions} | ({} if factors is None else {"factors": factors})
        add(f"rope_{label}", "rope", _rope(ggml, heads, positions, factors, p), p, **inputs)

    w = rng.standard_normal((48, 512)).astype(np.float32)
    y = rng.standard_normal((9, 512)).astype(np.float32)
    add("mul_mat", "mul_mat", _unary(ggml, "mul_mat", w, y), {}, a=w, b=y)
    arrays["index"] = np.array(json.dumps(index))
    return arrays, measured
