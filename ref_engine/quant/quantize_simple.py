"""Quantising to the small block types, byte for byte as ggml does. See `fit` for the arithmetic.

Sources: `quantize_row_q4_0_ref` ... `quantize_row_q8_0_ref`, `quantize_row_q4_0_impl` ... where importances are given,
`quantize_row_tq1_0_ref`, `quantize_row_tq2_0_ref`, `quantize_row_mxfp4_ref`, `quantize_row_nvfp4_ref`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32
from ref_engine.quant.codebooks import E2M1_TWICE
from ref_engine.quant.fit import I32, f, fit_signed, fit_with_minimum, group_weights, in_order, largest, least
from ref_engine.quant.fp4 import MXFP4, NVFP4, half_e8m0, ue4m3_units
from ref_engine.quant.simple import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from ref_engine.quant.ternary import Q1_0, Q2_0, TQ1_0, TQ2_0

U8 = NDArray[Any]  # uint8; a type checker takes shifted bytes for larger integers
Records = NDArray[Any]
_MIN_GRID = (-0.9, 0.05, 36)


def row_weights(rows: F32, importance: F32) -> F32:
    """(R, K) weights, (K,) importances -> (R, K): importance * sqrt(mean square of the row + x^2)."""
    mean = in_order(np.ascontiguousarray((rows * rows).T)) / f(rows.shape[1])
    return group_weights(rows, mean[:, None], importance)


def to_int(x: F32) -> I32:
    """Cut off the fraction; what does not fit an int becomes -2^31, as x86 converts."""
    whole = np.trunc(x)
    return np.where(np.abs(whole) < 2.0**31, whole, f(-(2.0**31))).astype(np.int32)


def round_away(x: F32) -> F32:
    """C's roundf: the nearest whole number, halves away from zero."""
    whole = np.trunc(x)
    return whole + np.copysign((np.abs(x - whole) >= f(0.5)).astype(np.float32), x)


def _inverse(d: F32) -> F32:
    return np.where(d != 0, f(1) / d, f(0))


def _byte(x: F32, limit: int) -> U8:
    """Through a signed byte, at most `limit`, into an unsigned byte."""
    signed = (to_int(x) & 255).astype(np.uint8).view(np.int8)
    return np.minimum(signed, np.int8(limit)).view(np.uint8)


def _halves(q: U8) -> U8:
    """(N, 32) of 4 bits -> (N, 16): weight i in the low, weight i + 16 in the high nibble; undoes `nibbles`."""
    n = q.shape[-1] // 2
    packed: U8 = q[..., :n] | q[..., n:] << 4
    return packed


def _top_bits(q: U8) -> U8:
    """Bit 4 of each of 32 integers -> (N, 4) bytes."""
    return np.packbits(q >> 4 & 1, axis=-1, bitorder="little")


def _symmetric(x: F32, w: F32 | None, half: int) -> tuple[F32, U8]:
    """Scale (N,) and q + half in 0 .. 2 * half - 1 (N, 32) for value = d * q."""
    if w is not None:
        d, q = fit_signed(x.T, np.ascontiguousarray(w.T), half)
        return d, (q.T + f(half)).astype(np.uint8)
    d = (largest(x.T) + f(0)) / f(-half)  # + 0: a block of minus zeros counts as zeros
    return d, _byte(x * _inverse(d)[:, None] + f(half + 0.5), 2 * half - 1)


def _with_minimum(x: F32, w: F32 | None, nmax: int) -> tuple[F32, F32, U8]:
    """Scale, minimum and q in 0 .. nmax for value = d * q + m."""
    if w is not None:
        d, low, q = fit_with_minimum(np.ascontiguousarray(x.T), np.ascontiguousarray(w.T), nmax, _MIN_GRID)
        return d, -low, q.T.astype(np.uint8)
    m, high = least(x.T), -least(-x.T)
    d = (high - m) / f(nmax)
    scaled = (x - m[:, None]) * _inverse(d)[:, None] + f(0.5)
    return d, m, _byte(scaled, 15) if nmax == 15 else (to_int(scaled) & 255).astype(np.uint8)


def quantize_q4_0(x: F32, w: F32 | None) -> Records:
    """(N, 32), and as many weights of errors or None -> Q4_0 records."""
    out = np.zeros(len(x), Q4_0.layout)
    out["d"], q = _symmetric(x, w, 8)
    out["qs"] = _halves(q)
    return out


def quantize_q5_0(x: F32, w: F32 | None) -> Records:
    out = np.zeros(len(x), Q5_0.layout)
    out["d"], q = _symmetric(x, w, 16)
    out["qs"], out["qh"] = _halves(q & 15), _top_bits(q)
    return out


def quantize_q4_1(x: F32, w: F32 | None) -> Records:
    out = np.zeros(len(x), Q4_1.layout)
    out["d"], out["m"], q = _with_minimum(x, w, 15)
    out["qs"] = _halves(q)
    return out


def quantize_q5_1(x: F32, w: F32 | None) -> Records:
    out = np.zeros(len(x), Q5_1.layout)
    out["d"], out["m"], q = _with_minimum(x, w, 31)
    out["qs"], out["qh"] = _halves(q & 15), _top_bits(q)
    return out


def _eight_bits(x: F32) -> tuple[F32, NDArray[np.int8]]:
    d = np.abs(x).max(axis=1) / f(127)
    q = to_int(round_away(x * _inverse(d)[:, None]))
    return d, (q & 255).astype(np.uint8).view(np.int8)


def quantize_q8_0(x: F32, w: F32 | None) -> Records:
    out = np.zeros(len(x), Q8_0.layout)
    out["d"], out["qs"] = _eight_bits(x)
    return out


def quantize_q1_0(x: F32, w: F32 | None) -> Records:
    """Scale: the mean magnitude."""
    out = np.zeros(len(x), Q1_0.layout)
    out["d"] = in_order(np.ascontiguousarray(np.abs(x).T)) / f(128)
    out["qs"] = np.packbits(x >= 0, axis=-1, bitorder="little")
    return out


def _whole_steps(x: F32, d: F32) -> F32:
    """x / d rounded; 0 where d is so small that 1 / d is infinite."""
    steps = round_away(x * _inverse(d)[:, None])
    return np.where(np.isfinite(steps), steps, f(0))


def quantize_q2_0(x: F32, w: F32 | None) -> Records:
    out = np.zeros(len(x), Q2_0.layout)
    out["d"] = d = np.abs(x).max(axis=1)
    steps = round_away(x * np.where(d > 0, f(1) / d, f(0))[:, None])
    q = np.where(np.isfinite(steps), np.clip(steps + f(1), 0, 3), f(0)).astype(np.uint8).reshape(len(x), 16, 4)
    out["qs"] = q[..., 0] | q[..., 1] << 2 | q[..., 2] << 4 | q[..., 3] << 6
    return out


def _pack_trits(q: U8) -> U8:
    """(..., n, k) digits 0..2 -> (..., k) bytes; undoes `ternary._trits`. Fewer than five digits are followed by 0."""
    number = np.zeros((*q.shape[:-2], q.shape[-1]), np.uint16)
    for i in range(5):
        number = number * np.uint16(3) + (q[..., i, :] if i < q.shape[-2] else 0)
    return ((number * np.uint32(256) + np.uint32(242)) // np.uint32(243)).astype(np.uint8)


def quantize_tq1_0(x: F32, w: F32 | None) -> Records:
    out = np.zeros(len(x), TQ1_0.layout)
    out["d"] = d = np.abs(x).max(axis=1)
    q = (_whole_steps(x, d) + f(1)).astype(np.uint8)
    out["qs"][:, :32] = _pack_trits(q[:, :160].reshape(-1, 5, 32))
    out["qs"][:, 32:] = _pack_trits(q[:, 160:240].reshape(-1, 5, 16))
    out["qh"] = _pack_trits(q[:, 240:].reshape(-1, 4, 4))
    return out


def quantize_tq2_0(x: F32, w: F32 | None) -> Records:
    out = np.zeros(len(x), TQ2_0.layout)
    out["d"] = d = np.abs(x).max(axis=1)
    q = (_whole_steps(x, d) + f(1)).astype(np.uint8).reshape(-1, 2, 4, 32)
    out["qs"] = (q[:, :, 0] | q[:, :, 1] << 2 | q[:, :, 2] << 4 | q[:, :, 3] << 6).reshape(-1, 64)
    return out


def _nearest_e2m1(x: F32, d: F32) -> U8:
    """(..., n) values, (...) half scales -> the codes with the least distance, the first of equals."""
    best = np.zeros(x.shape, np.uint8)
    least_error = np.abs(f(0) * d[..., None] - x)
    for code, value in enumerate(E2M1_TWICE):
        error = np.abs(f(value) * d[..., None] - x)
        better = error < least_error
        best[better] = code
        least_error = np.where(better, error, least_error)
    return best


def _e8m0(top: F32) -> U8:
    """Exponent byte: floor(log2) of the largest magnitude, less 2; the logarithm is float32, as log2f rounds it."""
    exponent = np.floor(np.log2(top.astype(np.float64)).astype(np.float32)) - f(2) + f(127)
    return np.where(top > 0, to_int(exponent) & 255, 0).astype(np.uint8)


def quantize_mxfp4(x: F32, w: F32 | None) -> Records:
    out = np.zeros(len(x), MXFP4.layout)
    out["e"] = e = _e8m0(np.abs(x).max(axis=1))
    out["qs"] = _halves(_nearest_e2m1(x, half_e8m0(e)))
    return out


def _ue4m3(x: F32) -> U8:
    """Positive float32 -> the unsigned 8-bit float of NVFP4, rounded by the first bit dropped, at most 448."""
    x = np.minimum(x, f(448))
    bits = x.view(np.int32)
    exponent, mantissa = (bits >> 23 & 255) - 120, bits >> 20 & 7
    rounded = mantissa + (bits >> 19 & 1)
    exponent, mantissa = exponent + (rounded > 7), np.where(rounded > 7, 0, rounded)
    normal = np.where(exponent >= 15, 0x7E, exponent << 3 | mantissa)
    small = np.minimum(to_int(x * f(512) + f(0.5)), 7)
    code = np.where((bits >> 23 & 255) - 120 <= 0, small, normal)
    return np.where(x > 0, code, 0).astype(np.uint8)


def quantize_nvfp4(x: F32, w: F32 | None) -> Records:
    out = np.zeros(len(x), NVFP4.layout)
    sub = x.reshape(-1, 4, 16)
    out["scales"] = scales = _ue4m3(np.abs(sub).max(axis=2) / f(6))
    half_scale = (ue4m3_units(scales) * 2.0**-10).astype(np.float32)
    out["qs"] = _halves(_nearest_e2m1(sub, half_scale)).reshape(-1, 32)
    return out
