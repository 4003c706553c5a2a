"""Attention over the cache on the device, without a matrix of scores in its memory.

The kernels know causal masks and windows, caps and sinks. Other masks, slopes, and steps that somebody looks at are the
reference's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.gpu import module
from ref_engine.gpu.layers import whole
from ref_engine.gpu.module import NOTHING
from ref_engine.reference.attention import Tap, attend_blas
from ref_engine.reference.sums import F32

HEADS, _CHUNK, _THREADS = 8, 64, 128  # as in cuda/attention.cu
_SHARED = 48 << 10  # bytes that a block of threads may share without asking for more
_BLOCKS = 512  # of threads, so that all processors of a large device have some
_LEAST_PART = 128  # keys


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
    """As reference attend_blas: q (T, H, Hd), k (S, K, Hd), v (S, K, Vd), positions (T,) on the host -> (T, H * Vd)."""
    (T, H, Hd), (S, K, Vd) = q.shape, v.shape
    heads = min(HEADS, H // K)
    shared = 4 * heads * (Hd + Vd + _CHUNK + 3)
    in_order = T > 0 and positions[0] >= 0 and positions[-1] < S and bool((np.diff(positions) == 1).all())
    plain = k.dtype == v.dtype and k.dtype in (np.float16, np.float32) and k.flags.c_contiguous and v.flags.c_contiguous
    if tap or slopes is not None or seen is not None or shared > _SHARED or not in_order or not plain:
        return attend_blas(
            q, k, v, positions, scale=scale, window=window, cap=cap, sinks=sinks, slopes=slopes, seen=seen, tap=tap
        )
    blocks = K * -(-(H // K) // HEADS)
    part = max(_LEAST_PART, -(-S // max(1, _BLOCKS // (blocks * T))))
    parts = -(-S // part)
    q = whole(q)
    most, total = (np.empty((T, H, parts), np.float32, like=q) for _ in range(2))
    out = np.empty((T, H, parts, Vd), np.float32, like=q)
    sizes = [np.int32(n) for n in (H, K, Hd, Vd)]
    rest = (np.int64(positions[0]), np.int32(window or 0), np.float32(scale), np.float32(cap or 0), np.int32(part))
    kind = "F16" if k.dtype == np.float16 else "F32"
    kernel = module.get("attention", "attend_parts", kind)
    kernel((T, blocks, parts), (_THREADS,), (q, k, v, most, total, out, *sizes, *rest), shared_mem=shared)
    y: F32 = np.empty((T, H * Vd), np.float32, like=q)
    of_sinks = NOTHING if sinks is None else whole(sinks)
    arguments = (most, total, out, of_sinks, y, np.int32(H), np.int32(parts), np.int32(Vd))
    module.get("attention", "attend_whole", kind)((T, H), (_THREADS,), arguments)
    return y
