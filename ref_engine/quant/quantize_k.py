"""Quantising to the K-quants, byte for byte as ggml does. See `fit` for the arithmetic, `kquants` for the blocks.

Sources: `quantize_row_q2_K_ref` ... `quantize_row_q6_K_ref`, and `quantize_row_q2_K_impl` ... where importances are
given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32
from ref_engine.quant.fit import (
    ZERO_BELOW,
    f,
    fit_positive,
    fit_signed,
    fit_three_bits,
    fit_with_minimum,
    group_weights,
    half,
    in_order,
    largest,
    nearest_between,
    nearest_int,
)
from ref_engine.quant.kquants import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K

U8 = NDArray[Any]  # uint8; a type checker takes shifted bytes for larger integers


def groups(x: F32, n: int) -> F32:
    """(blocks, 256) -> (n, blocks * 256 / n): groups of n side by side."""
    return np.ascontiguousarray(x.reshape(-1, n).T)


def per_block(x: F32, n_groups: int) -> F32:
    """(blocks * n_groups,) -> (n_groups, blocks)."""
    return np.ascontiguousarray(x.reshape(-1, n_groups).T)


def sigma2(x: F32, factor: int) -> F32:
    """(blocks, 256) -> (blocks,): factor * sum of squares / 256."""
    return f(factor) * in_order(np.ascontiguousarray((x * x).T)) / f(256)


def _stored(x: F32, d: F32, m: F32 | np.float32, q: F32, low: int, high: int) -> F32:
    """Integers for the scale and minimum as they are stored; where the scale is zero, those of the search stay."""
    return np.where(d != 0, nearest_between((x + m) / d, low, high), q)


def _bit_pairs(q: U8) -> U8:
    """(blocks, 256) of 2 bits -> (blocks, 64) bytes; undoes `kquants._bit_pairs`."""
    runs = q.reshape(-1, 2, 4, 32)
    packed: U8 = runs[:, :, 0] | runs[:, :, 1] << 2 | runs[:, :, 2] << 4 | runs[:, :, 3] << 6
    return packed.reshape(-1, 64)


def _nibble_pairs(q: U8) -> U8:
    """(blocks, 256) of 4 bits -> (blocks, 128) bytes; undoes `kquants._nibble_pairs`."""
    runs = q.reshape(-1, 4, 2, 32)
    packed: U8 = runs[:, :, 0] | runs[:, :, 1] << 4
    return packed.reshape(-1, 128)


def _six_bits(scales: U8, mins: U8) -> U8:
    """Eight scales and minima of 6 bits, (8, blocks) each -> (blocks, 12); undoes `kquants.scales_and_mins`."""
    s, m = scales.T, mins.T
    first = [s[:, :4] | s[:, 4:] >> 4 << 6, m[:, :4] | m[:, 4:] >> 4 << 6]
    return np.concatenate([*first, (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4], axis=1)


def _by_maximum(values: F32, steps: int) -> tuple[F32, U8]:
    """(G, blocks) -> the step, largest / steps or 0, and each value as a number of steps, kept in a byte."""
    high = np.maximum(np.fmax.reduce(values, axis=0), f(0))  # NaN is passed over
    inverse = np.where(high > 0, f(steps) / high, f(0))
    return high / f(steps), (nearest_int(inverse * values) & 255).astype(np.uint8)


def quantize_q2_k(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(blocks, 256), and as many importances or None -> Q2_K records."""
    g = groups(x, 16)
    if importance is None:
        scale, low, q = fit_with_minimum(g, np.abs(g), 3, (-0.5, 0.1, 15), absolute=True)
        d, scales = _by_maximum(per_block(scale, 16), 15)
        dmin, mins = _by_maximum(per_block(low, 16), 15)
        packed = (scales | mins << 4).T
    else:
        w = group_weights(g, np.repeat(sigma2(x, 1), 16), groups(importance, 16))
        scale, low, q = fit_with_minimum(g, w, 3, (-0.9, 0.05, 36))
        sums = per_block(in_order(w), 16)
        d, scales = fit_positive(per_block(scale, 16), sums, 15)
        dmin, mins = fit_positive(per_block(low, 16), sums, 15)
        packed = (scales | mins << 4).T
    out = np.zeros(len(x), Q2_K.layout)
    out["d"], out["dmin"], out["scales"] = d, dmin, packed
    ds = half(d)[:, None] * (packed & 15).astype(np.float32)
    ms = half(dmin)[:, None] * (packed >> 4).astype(np.float32)
    q = _stored(g, ds.reshape(-1), ms.reshape(-1), q, 0, 3)
    out["qs"] = _bit_pairs(q.T.astype(np.uint8).reshape(len(x), 256))
    return out


def quantize_q3_k(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(blocks, 256), and as many importances or None -> Q3_K records."""
    g = groups(x, 16)
    if importance is None:
        scale, q = fit_three_bits(g)
        scale = per_block(scale, 16)
        top = largest(scale)
        inverse, empty = f(-32) / top, top == 0
        six = np.where(empty, f(-32), nearest_between(inverse * scale, -32, 31))
        d = np.where(empty, f(0), f(1) / inverse)
    else:
        w = group_weights(g, np.repeat(sigma2(x, 2), 16), groups(importance, 16))
        scale, q = fit_signed(g, w, 4)
        d, six = fit_signed(per_block(scale, 16), per_block(in_order(w), 16), 32)
    s = (six.T + f(32)).astype(np.uint8)
    out = np.zeros(len(x), Q3_K.layout)
    high = (s >> 4).reshape(-1, 4, 4)
    tops = high[:, 0] | high[:, 1] << 2 | high[:, 2] << 4 | high[:, 3] << 6
    out["d"] = d
    out["scales"] = np.concatenate([s[:, :8] & 15 | (s[:, 8:] & 15) << 4, tops], axis=1)
    ds = half(d)[:, None] * six.T
    q = _stored(g, ds.reshape(-1), f(0), q, -4, 3).T.reshape(len(x), 256)
    bits = (q + f(4)).astype(np.uint8)
    out["hmask"] = np.packbits((bits >> 2).reshape(-1, 8, 32), axis=1, bitorder="little")[:, 0]
    out["qs"] = _bit_pairs(bits & 3)
    return out


def _quantize_with_mins(
    x: F32, importance: F32 | None, out: NDArray[Any], nmax: int, grid: tuple[float, float, int]
) -> U8:
    """The scales of Q4_K and Q5_K into `out`; returns the integers 0 .. nmax, (blocks, 256)."""
    g = groups(x, 32)
    if importance is None:
        w = np.sqrt(in_order(g * g) / f(32)) + np.abs(g)
        scale, low, q = fit_with_minimum(g, w, nmax, grid)
        d, scales = _by_maximum(per_block(scale, 8), 63)
        dmin, mins = _by_maximum(per_block(low, 8), 63)
    else:
        w = group_weights(g, np.repeat(sigma2(x, 2), 8), groups(importance, 32))
        scale, low, q = fit_with_minimum(g, w, nmax, (-0.9, 0.05, 36))
        sums = per_block(in_order(w), 8)
        d, scales = fit_positive(per_block(scale, 8), sums, 63)
        dmin, mins = fit_positive(per_block(low, 8), sums, 63)
    scales, mins = np.minimum(scales, 63), np.minimum(mins, 63)
    out["d"], out["dmin"], out["scales"] = d, dmin, _six_bits(scales, mins)
    ds = half(d)[:, None] * scales.T.astype(np.float32)
    ms = half(dmin)[:, None] * mins.T.astype(np.float32)
    q = _stored(g, ds.reshape(-1), ms.reshape(-1), q, 0, nmax)
    return q.T.astype(np.uint8).reshape(len(x), 256)


def quantize_q4_k(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(blocks, 256), and as many importances or None -> Q4_K records."""
    out = np.zeros(len(x), Q4_K.layout)
    out["qs"] = _nibble_pairs(_quantize_with_mins(x, importance, out, 15, (-1.0, 0.1, 20)))
    return out


def quantize_q5_k(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(blocks, 256), and as many importances or None -> Q5_K records."""
    out = np.zeros(len(x), Q5_K.layout)
    q = _quantize_with_mins(x, importance, out, 31, (-0.5, 0.1, 15))
    out["qs"] = _nibble_pairs(q & 15)
    out["qh"] = np.packbits((q >> 4).reshape(-1, 8, 32), axis=1, bitorder="little")[:, 0]
    return out


def quantize_q6_k(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(blocks, 256), and as many importances or None -> Q6_K records. Importances are taken as they are."""
    g = groups(x, 16)
    scale, q = fit_signed(g, g * g if importance is None else groups(importance, 16), 32)
    scale = per_block(scale, 16)
    top = largest(scale)
    inverse = f(-128) / top
    out = np.zeros(len(x), Q6_K.layout)
    out["d"] = f(1) / inverse
    out["scales"] = np.minimum(nearest_int(inverse * scale), 127).T
    ds = half(f(1) / inverse)[:, None] * out["scales"].astype(np.float32)
    q = _stored(g, ds.reshape(-1), f(0), q, -32, 31).T.reshape(len(x), 256)
    six = (q + f(32)).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = six & 15, six >> 4
    out["ql"] = np.concatenate([low[:, :, :2] | low[:, :, 2:] << 4], axis=2).reshape(-1, 128)
    out["qh"] = (high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6).reshape(-1, 64)
    out[np.abs(top) < ZERO_BELOW] = np.zeros((), Q6_K.layout)
    return out
