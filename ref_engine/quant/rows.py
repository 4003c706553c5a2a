"""Rows of keys and values as a cache keeps them: float32, float16, or blocks of Q8_0.

Blocks are written as `quantize_row_q8_0` writes them (the x86 version: scale max / 127 in float16, ties to even). What
becomes blocks is rotated before (reference/hadamard.py), as llama.cpp rotates it: the product of a query and a key that
are rotated alike is the same, and what is mixed of rotated values is rotated back.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.activations import Q8_0_LAYOUT, q8_0
from ref_engine.quant.blocks import F32

CacheType = Literal["f32", "f16", "q8_0"]
CACHE_TYPES: tuple[CacheType, ...] = ("f32", "f16", "q8_0")
BLOCK = 32  # numbers of one scale
_LEAST_SPREAD = 64
_DTYPES: dict[CacheType, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "q8_0": Q8_0_LAYOUT,
}
_QUANTISED = ("k", "v")  # what else layers remember is small, and float16 beside such keys and values


def row_type(type: CacheType, name: str) -> np.dtype[Any]:
    """What one item of a memory `name` is, in a cache of a type: a number, or a block of 32."""
    return _DTYPES["f16" if type == "q8_0" and name not in _QUANTISED else type]


def row_shape(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """The shape of a row's items, for a row of numbers of this shape. Raises ValueError for a part of a block."""
    if dtype != Q8_0_LAYOUT:
        return shape
    if shape[-1] % BLOCK:
        raise ValueError(f"{shape[-1]} numbers are not whole blocks of {BLOCK}")
    return (*shape[:-1], shape[-1] // BLOCK)


def row_bytes(shape: tuple[int, ...], type: CacheType, name: str) -> int:
    """Bytes of a row of numbers of this shape. Raises ValueError for a part of a block."""
    dtype = row_type(type, name)
    return math.prod(row_shape(shape, dtype)) * dtype.itemsize


def as_rows(x: F32, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers (..., n) as a cache keeps them: (..., n), or (..., n / 32) blocks."""
    if dtype != Q8_0_LAYOUT:
        with np.errstate(over="ignore"):  # beyond 65504 an f16 cache holds infinity, as ggml's does
            return x.astype(dtype, copy=False)
    rounded = q8_0(x.reshape(-1, x.shape[-1]))
    blocks = np.empty(rounded.d.shape, Q8_0_LAYOUT)
    with np.errstate(over="ignore"):
        blocks["qs"], blocks["d"] = rounded.q, rounded.d
    return blocks.reshape(row_shape(x.shape, dtype))


def numbers(rows: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """The numbers of rows: as they are, or of blocks d * q, which float32 holds exactly."""
    if rows.dtype != Q8_0_LAYOUT:
        return rows
    with np.errstate(invalid="ignore"):
        x: F32 = rows["d"].astype(np.float32)[..., None] * rows["qs"].astype(np.float32)
    return x.reshape(*rows.shape[:-1], -1)


def width(rows: NDArray[Any]) -> int:
    """How many numbers the last axis holds."""
    n: int = rows.shape[-1]
    return n * BLOCK if rows.dtype == Q8_0_LAYOUT else n


def cache_type(rows: NDArray[Any]) -> CacheType:
    """Raises ValueError for rows that no cache has."""
    found = [type for type, dtype in _DTYPES.items() if dtype == rows.dtype]
    if not found:
        raise ValueError(f"no cache has rows of {rows.dtype}")
    return found[0]


def spread_over(type: CacheType, n_key: int, n_value: int) -> tuple[int, int]:
    """Over how many features of a key and of a value a rotation spreads what is large: the largest power of two that
    divides n_key, from 64 on, and 64. 1: none, as where the cache has no blocks (llama_kv_cache::build_input_k_rot)."""
    over = n_key & -n_key, min(n_value & -n_value, _LEAST_SPREAD)
    over_k, over_v = (width if type == "q8_0" and width >= _LEAST_SPREAD else 1 for width in over)
    return over_k, over_v


def first_numbers(rows: NDArray[Any], n: int) -> NDArray[Any]:
    """Of each row the first n numbers, as a view where they are whole blocks."""
    if rows.dtype != Q8_0_LAYOUT:
        return rows[..., :n]
    return rows[..., : n // BLOCK] if n % BLOCK == 0 else numbers(rows)[..., :n]
