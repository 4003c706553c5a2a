"""Norms, rotation and activations on the device: one launch each, where the reference functions take several.

Arrays may be parts of others, as heads of a fused product or the halves of a gate are: kernels are told the strides.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ref_engine.gpu import module
from ref_engine.gpu.module import NOTHING
from ref_engine.reference import attention as reference_attention
from ref_engine.reference import ffn as reference_ffn
from ref_engine.reference import norm as reference_norm
from ref_engine.reference import rope as reference_rope
from ref_engine.reference.sums import F32
from ref_engine.spec import Pairing

_THREADS = 128
_NARROW = 1024  # rows up to this width have a warp each, wider ones a block of eight
_NAMES = "silu gelu relu relu_sqr swiglu_oai swiglu_clamp swiglu_limit situ soft_cap sigmoid"
_KINDS = {name: number for number, name in enumerate(_NAMES.split())}
_CONSTANTS = {"swiglu_oai": 2, "swiglu_clamp": 1, "swiglu_limit": 1, "situ": 2}


def known(*arrays: Any) -> bool:
    """Whether kernels take them: float32, and not empty."""
    return all(x.dtype == np.float32 and x.size for x in arrays)


def rows_of(x: Any) -> tuple[Any, ...]:
    """An array (..., width) as kernels take it: where it is, and three numbers that say where each row is."""
    if x.strides[-1] != x.itemsize and x.shape[-1] > 1:
        x = np.ascontiguousarray(x, like=x)
    if x.ndim > 3 or any(s % x.itemsize for s in x.strides):
        x = np.ascontiguousarray(x, like=x).reshape(-1, x.shape[-1])
    outer, inner = (0, 0, *(s // x.itemsize for s in x.strides[:-1]))[-2:]
    return x, np.int32(x.shape[-2] if x.ndim > 1 else 1), np.int64(outer), np.int64(inner)


def by_feature(x: Any, *vectors: Any) -> bool:
    """Whether each vector has a number for each feature, the same in all rows of x."""
    return all(v is None or v.shape == x.shape[-1:] for v in vectors)


def together(x: Any) -> Any:
    """A vector or table as kernels take it, its numbers one after the other; null for none."""
    return NOTHING if x is None else np.ascontiguousarray(x, np.float32, like=x)


def rms_norm(x: F32, weight: F32 | None, eps: float) -> F32:
    """As reference rms_norm: x (..., D), weight (D,) or None -> (..., D)."""
    if not known(x):
        return reference_norm.rms_norm_exact(x, weight, eps)
    inside = by_feature(x, weight)
    y: F32 = np.empty(x.shape, np.float32, like=x)
    n, grid, block = _shape(x)
    numbers = (np.int64(n), np.int32(x.shape[-1]), np.float32(eps))
    arguments = (*rows_of(x), together(weight if inside else None), y, *numbers)
    module.get("norm", "rms_norm")(grid, block, arguments)
    return y if weight is None or inside else y * weight


def layer_norm(x: F32, weight: F32 | None, bias: F32 | None, eps: float) -> F32:
    """As reference layer_norm: x (..., D), weight and bias (D,) or None -> (..., D)."""
    if not known(x) or not by_feature(x, weight, bias):
        return reference_norm.layer_norm(x, weight, bias, eps)
    y = np.empty(x.shape, np.float32, like=x)
    n, grid, block = _shape(x)
    numbers = (np.int64(n), np.int32(x.shape[-1]), np.float32(eps))
    module.get("norm", "layer_norm")(grid, block, (*rows_of(x), together(weight), together(bias), y, *numbers))
    return y


def _shape(x: Any) -> tuple[int, tuple[int], tuple[int, int]]:
    """Rows, grid and block of a norm."""
    n = math.prod(x.shape[:-1])
    rows = 4 if x.shape[-1] <= _NARROW and n > 1 else 1
    return n, (-(-n // rows),), (32 if rows > 1 else 256, rows)


def rope(x: F32, cos: F32, sin: F32, pairing: Pairing) -> F32:
    """As reference rope: x (T, H, Hd), cos and sin (T, n_rot / 2) -> (T, H, Hd)."""
    half = cos.shape[-1]
    if not known(x, cos, sin):
        return reference_rope.rope(x, cos, sin, pairing)
    y: F32 = np.empty(x.shape, np.float32, like=x)
    tokens, heads, width = x.shape
    n = tokens * heads
    numbers = (np.int64(n), *(np.int32(i) for i in (heads, width, half, pairing == "adjacent")))
    arguments = (*rows_of(x), together(cos), together(sin), y, *numbers)
    module.get("elementwise", "rope")((-(-n * (width - half) // _THREADS),), (_THREADS,), arguments)
    return y


def glu(gate: F32, up: F32, activation: str, constants: tuple[float, ...] = ()) -> F32:
    """As reference glu: gate and up (T, F) -> (T, F). Raises KeyError for an unknown activation."""
    unit = activation in reference_ffn.ACTIVATIONS or _CONSTANTS.get(activation) == len(constants)
    if not unit or activation not in _KINDS or not known(gate, up) or gate.shape != up.shape:
        return reference_ffn.glu(gate, up, activation, constants)
    y: F32 = np.empty(gate.shape, np.float32, like=gate)
    a, b = (np.float32(c) for c in (*constants, 0, 0)[:2])
    arguments = (*rows_of(gate), *rows_of(up), y, *_numbers(gate), np.int32(_KINDS[activation]), a, b)
    module.get("elementwise", "glu")(_grid(gate), (_THREADS,), arguments)
    return y


def activation(x: F32, name: str) -> F32:
    """As reference activation, any shape. Raises KeyError for an unknown one."""
    if name not in reference_ffn.ACTIVATIONS or name not in _KINDS or not known(x):
        return reference_ffn.activation(x, name)
    y: F32 = _activate(x, name, 0)
    return y


def soft_cap(x: F32, cap: float) -> F32:
    """tanh(x / cap) * cap, any shape."""
    return _activate(x, "soft_cap", cap) if known(x) else reference_attention.soft_cap(x, cap)


def _activate(x: Any, kind: str, cap: float) -> Any:
    y = np.empty(x.shape, np.float32, like=x)
    caps = (np.float32(cap), np.float32(1 / cap if cap else 0))
    rows = x.reshape(1, 1) if not x.ndim else x
    arguments = (*rows_of(rows), y, *_numbers(rows), np.int32(_KINDS[kind]), *caps)
    module.get("elementwise", "activate")(_grid(x), (_THREADS,), arguments)
    return y


def _numbers(x: Any) -> tuple[Any, Any]:
    return np.int64(math.prod(x.shape[:-1])), np.int32(x.shape[-1])


def _grid(x: Any) -> tuple[int]:
    return (-(-x.size // _THREADS),)
