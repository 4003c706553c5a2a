"""Norms, rotation and gated activations by a kernel each; with the names and signatures of `reference/`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ref_engine.gpu import module
from ref_engine.gpu.module import NOTHING
from ref_engine.reference import ffn, norm
from ref_engine.reference import rope as reference_rope
from ref_engine.reference.sums import F32
from ref_engine.spec import Pairing

_ACTIVATIONS = {"silu": 0, "gelu": 1, "relu": 2, "relu_sqr": 3}
_THREADS, _TURNERS = 256, 64


def whole(x: Any) -> Any:
    """The same float32 numbers one after the other."""
    return np.ascontiguousarray(x, np.float32, like=x)


def rms_norm(x: F32, weight: F32 | None, eps: float) -> F32:
    """As reference rms_norm_exact: x (..., D), weight (D,) or None -> (..., D), the mean in float64."""
    if not x.size or (weight is not None and weight.shape != x.shape[-1:]):
        return norm.rms_norm_exact(x, weight, eps)
    x, w = whole(x), NOTHING if weight is None else whole(weight)
    y: F32 = np.empty(x.shape, np.float32, like=x)
    rows, D = x.size // x.shape[-1], x.shape[-1]
    module.get("layers", "rms_norm")((rows,), (_THREADS,), (x, w, y, np.int32(D), np.float32(eps)))
    return y


def rope(x: F32, cos: F32, sin: F32, pairing: Pairing) -> F32:
    """As reference rope: x (T, H, Hd), cos and sin (T, n_rot / 2) -> (T, H, Hd)."""
    if not x.size or x.strides[2] != 4:
        return reference_rope.rope(x, cos, sin, pairing)
    (T, H, Hd), n = x.shape, cos.shape[-1]
    y: F32 = np.empty(x.shape, np.float32, like=x)
    sizes = (np.int32(H), np.int32(Hd), np.int32(n), np.int64(x.strides[0] // 4), np.int64(x.strides[1] // 4))
    grid = (T, -(-(Hd - n) // _TURNERS))
    arguments = (x, whole(cos), whole(sin), y, *sizes, np.int32(pairing == "adjacent"))
    module.get("layers", "rope")(grid, (_TURNERS,), arguments)
    return y


def glu(gate: F32, up: F32, activation: str, constants: tuple[float, ...] = ()) -> F32:
    """As reference glu: gate (T, F), up (T, F) -> (T, F). Units with constants of their own are the reference's."""
    if activation not in _ACTIVATIONS or not gate.size:
        return ffn.glu(gate, up, activation, constants)
    return _activated(gate, whole(up), activation)


def activation(x: F32, name: str) -> F32:
    """As reference activation: any shape. Raises KeyError for an unknown one."""
    return _activated(x, NOTHING, name) if name in _ACTIVATIONS and x.size else ffn.activation(x, name)


def _activated(x: Any, up: Any, name: str) -> F32:
    x = whole(x)
    y: F32 = np.empty(x.shape, np.float32, like=x)
    grid = (-(-x.size // _THREADS),)
    module.get("layers", "glu")(grid, (_THREADS,), (x, up, y, np.int64(x.size), np.int32(_ACTIVATIONS[name])))
    return y
