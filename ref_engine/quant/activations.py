"""Activations rounded to 8 bits, as ggml's CPU backend rounds the right-hand side of a quantised product.

Source: `quantize_row_q8_0`, `quantize_row_q8_1` (the x86 versions, which scale by 127 / max and round ties to even)
and `quantize_row_q8_K`. Two cases that ggml leaves to chance are fixed here. A block so small (below 4e-37) that its
scale is zero has zero integers; ggml converts infinities there, and multiplies what comes by the zero scale. A block
whose largest value is not finite has scale NaN and zero integers: the product is NaN, as it would be in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32

Q8_0_LAYOUT = np.dtype([("d", "<f2"), ("qs", "i1", (32,))])
Q8_1_LAYOUT = np.dtype([("d", "<f2"), ("s", "<f2"), ("qs", "i1", (32,))])
Q8_K_LAYOUT = np.dtype([("d", "<f4"), ("qs", "i1", (256,)), ("bsums", "<i2", (16,))])


@dataclass(frozen=True)
class Rounded:
    """Rows of activations in blocks of B.

    q: (T, n_blocks, B) int8;  d: (T, n_blocks) float32 scale;
    s: (T, n_blocks) float32, d times the sum of the block (q8_1), or None;
    sums: (T, n_blocks, 16) int16, sums of 16 integers each (q8_k), or None
    """

    q: NDArray[np.int8]
    d: F32
    s: F32 | None = None
    sums: NDArray[np.int16] | None = None

    def tobytes(self) -> bytes:
        """The same blocks as ggml lays them out in memory."""
        layout = Q8_K_LAYOUT if self.sums is not None else Q8_1_LAYOUT if self.s is not None else Q8_0_LAYOUT
        out = np.zeros(self.d.shape, layout)
        out["qs"], out["d"] = self.q, self.d
        if self.s is not None:
            out["s"] = self.s
        if self.sums is not None:
            out["bsums"] = self.sums
        return out.tobytes()


def _half(x: F32) -> F32:
    """Rounded to float16 and back."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def _to_int8(x: F32, finite: NDArray[np.bool_]) -> NDArray[np.int8]:
    return np.where(finite[..., None], np.rint(x), np.float32(0)).astype(np.int8)


def _by_largest(x: F32) -> tuple[NDArray[np.int8], F32]:
    """(T, K) -> integers (T, K/32, 32) in -127 .. 127 and the unrounded scale max|x| / 127."""
    blocks = x.reshape(x.shape[0], -1, 32)
    largest = np.abs(blocks).max(axis=-1)
    finite = np.isfinite(largest)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(largest != 0, np.float32(127) / largest, np.float32(0))
        q = _to_int8(blocks * inverse[..., None], finite & np.isfinite(inverse))
        d = np.where(finite, largest / np.float32(127), np.float32(np.nan))
    return q, d


def q8_0(x: F32) -> Rounded:
    """(T, K) float32, K a multiple of 32 -> blocks of 32 with a float16 scale."""
    q, d = _by_largest(x)
    return Rounded(q, _half(d))


def q8_1(x: F32) -> Rounded:
    """(T, K) float32, K a multiple of 32 -> as q8_0, with s = d * sum(q) from the unrounded d, in float16."""
    q, d = _by_largest(x)
    with np.errstate(over="ignore"):
        s = d * q.sum(axis=-1, dtype=np.int32).astype(np.float32)
    return Rounded(q, _half(d), s=_half(s))


def q8_k(x: F32) -> Rounded:
    """(T, K) float32, K a multiple of 256 -> blocks of 256 with a float32 scale and sums of 16.

    The scale is signed: the value of largest magnitude (the first of equals) becomes -127.
    """
    blocks = x.reshape(x.shape[0], -1, 256)
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    largest = np.take_along_axis(blocks, at, axis=-1)[..., 0]
    finite = np.isfinite(largest)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(largest != 0, np.float32(-127) / largest, np.float32(0))
        q = _to_int8(np.minimum(blocks * inverse[..., None], np.float32(127)), finite & np.isfinite(inverse))
        d = np.where(largest != 0, np.float32(1) / inverse, np.float32(0))
    d = np.where(finite, d, np.float32(np.nan))
    sums = q.reshape(*q.shape[:-1], 16, 16).sum(axis=-1, dtype=np.int16)
    return Rounded(q, d, sums=sums)


ROUNDINGS: dict[str, Any] = {"q8_0": q8_0, "q8_1": q8_1, "q8_k": q8_k}
