"""Attention to the keys and values of a cache, by one kernel, or two where the keys are divided among blocks.

The kernel's mask is causal, with or without a window. A mask of the caller's, slopes, and somebody who looks at scores
take the reference function over the device's arrays.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine import compat
from ref_engine.gpu import module
from ref_engine.gpu.layers import together
from ref_engine.gpu.module import NOTHING
from ref_engine.gpu.position import NotRecorded, Position
from ref_engine.reference.attention import Tap, attend_blas
from ref_engine.reference.sums import F32

_THREADS, _TILE, _LEAST_KEYS = 128, 64, 128
_ROWS = {1: (1, 2, 4, 8, 16), 2: (4, 16), 4: (4, 16)}  # of the kernels, by how many features a thread has
_MOST_SHARED = 48 << 10  # bytes that a block has unasked
_TYPES = {np.dtype(np.float32): "float", np.dtype(np.float16): "u16"}


@cache
def _processors(cupy: Any, device: int) -> int:
    return int(cupy.cuda.runtime.getDeviceProperties(device)["multiProcessorCount"])


def wanted_blocks() -> int:
    """As many as keep the device busy."""
    cupy = compat.cupy
    return 2 * _processors(cupy, cupy.cuda.runtime.getDevice())


def attend(
    q: F32,
    k: NDArray[np.floating[Any]],
    v: NDArray[np.floating[Any]],
    positions: NDArray[np.int64],
    *,
    scale: float,
    window: int | None = None,
    cap: float | None = None,
    sinks: F32 | None = None,
    slopes: F32 | None = None,
    seen: NDArray[np.bool_] | None = None,
    tap: Tap | None = None,
) -> F32:
    """As reference attend: q (T, H, Hd), k (S, K, Hd), v (S, K, Vd), positions (T,) on the host -> (T, H * Vd)."""
    shape = _kernel_of(q, k, v, positions) if slopes is None and seen is None and tap is None else None
    if shape is None and isinstance(positions, Position):
        raise NotRecorded("attention that no kernel knows")
    if shape is None:
        return attend_blas(
            q, k, v, positions, scale=scale, window=window, cap=cap, sinks=sinks, slopes=slopes, seen=seen, tap=tap
        )
    (tokens, heads, width), (n_keys, kv_heads, value_width) = q.shape, v.shape
    rows, features, shared = shape
    where: Any = positions.value if isinstance(positions, Position) else NOTHING
    first = 0 if isinstance(positions, Position) else int(positions[0])
    base = max(0, first - window + 1) if window else 0
    blocks = -(-tokens * (heads // kv_heads) // rows) * kv_heads
    parts, chunk = parts_of(max(1, n_keys - base), blocks)
    y: F32 = np.empty((tokens, heads, value_width), np.float32, like=q)
    part_y: Any = NOTHING
    stats: Any = NOTHING
    if parts > 1:
        part_y = np.empty((parts, *y.shape), np.float32, like=q)
        stats = np.empty((parts, tokens, heads, 2), np.float32, like=q)
    sizes = (tokens, heads, kv_heads, width, value_width, n_keys, first, window or 0, base, chunk)
    strides = (*_strides(k), *_strides(v))
    keys: Any = k
    wide = width % 4 == 0 and not any(s % 4 for s in strides[:2]) and keys.data.ptr % (4 * k.itemsize) == 0
    sinks = together(sinks)
    arguments = (
        together(q), k, v, sinks, y, part_y, stats, *map(np.int32, sizes), *map(np.int64, strides), np.int32(wide),
        np.float32(scale), np.float32(cap or 0), where,
    )  # fmt: skip
    kernel = module.get("attention", f"attend_{rows}_{features}", _TYPES[k.dtype])
    kernel((blocks // kv_heads, kv_heads, parts), (_THREADS,), arguments, shared_mem=shared)
    if parts > 1:
        numbers = map(np.int32, (parts, tokens * heads, heads, value_width))
        combine = module.get("attention", "combine", _TYPES[k.dtype])
        combine((tokens * heads,), (_THREADS,), (part_y, stats, sinks, y, *numbers))
    return y.reshape(tokens, -1)


def parts_of(n_keys: int, blocks: int) -> tuple[int, int]:
    """Into how many parts so many keys are divided where there are so many blocks already, and the keys of each."""
    parts = max(1, min(-(-n_keys // _LEAST_KEYS), wanted_blocks() // blocks))
    chunk = -(-n_keys // parts // _TILE) * _TILE
    return -(-n_keys // chunk), chunk


def _kernel_of(q: Any, k: Any, v: Any, positions: NDArray[np.int64]) -> tuple[int, int, int] | None:
    """Rows of a block, features of a thread, bytes of shared memory; None where no kernel takes these arrays."""
    tokens, heads, width = q.shape
    if not q.size or k.dtype != v.dtype or k.dtype not in _TYPES or q.dtype != np.float32 or heads % k.shape[1]:
        return None
    if any(x.strides[-1] != x.itemsize for x in (k, v)) or not k.shape[0] == v.shape[0] < 1 << 30:
        return None
    if not isinstance(positions, Position) and (np.diff(positions) != 1).any():
        return None
    features = 1 if v.shape[2] <= _THREADS else 2 if v.shape[2] <= 2 * _THREADS else 4
    if v.shape[2] > 4 * _THREADS:
        return None
    most = tokens * (heads // k.shape[1])
    fitting = [r for r in _ROWS[features] if _shared(r, width) <= _MOST_SHARED]
    if not fitting:
        return None
    rows = next((r for r in fitting if r >= most), fitting[-1])
    return rows, features, _shared(rows, width)


def _shared(rows: int, width: int) -> int:
    padded = -(-width // 32) * 32
    return 4 * rows * (max(padded, _THREADS) + _TILE + 3)


def _strides(x: Any) -> tuple[int, int]:
    return x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
