"""Quantising to IQ4_NL and IQ4_XS, byte for byte as ggml does. See `fit` for the arithmetic.

Source: `quantize_row_iq4_nl_impl`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32
from ref_engine.quant.codebooks import IQ4_VALUES
from ref_engine.quant.fit import ZERO_BELOW, f, group_weights, in_order, largest, nearest_between
from ref_engine.quant.iquants import IQ4_NL, IQ4_XS

U8 = NDArray[Any]  # uint8; a type checker takes shifted bytes for larger integers
_VALUES = np.array(IQ4_VALUES, np.float32)
_TRIES = 7
# Index of the nearest value for each interval of half a unit from -128 to 128. All midpoints are multiples of a half,
# so twice a number rounded down says on which side of each it lies; a midpoint itself belongs to the larger value.
_NEAREST = np.searchsorted((_VALUES[1:] + _VALUES[:-1]) / 2, np.arange(-256, 257) / 2, side="right").astype(np.uint8)


def nearest_value(x: F32) -> U8:
    """Index of the nearest of the sixteen values; NaN counts as large."""
    interval = np.fmax(np.fmin(np.floor(x * f(2)), f(256)), f(-256))
    index: U8 = _NEAREST[interval.astype(np.int16) + 256]
    return index


def _scales(x: F32, w: F32) -> F32:
    """(32, N), (32, N) -> (N,): of fifteen tries around -127 / largest the scale with the least error."""
    top = largest(x)

    def sums(inverse: F32) -> tuple[F32, F32]:
        values = _VALUES[nearest_value(inverse * x)]
        wv = w * values
        return in_order(wv * x), in_order(wv * values)

    xv, vv = sums(f(1) / (-top / _VALUES[0]))
    d = np.where(vv > 0, xv / vv, f(0))
    best = d * xv
    for step in range(-_TRIES, _TRIES + 1):
        xv, vv = sums((f(step) + _VALUES[0]) / top)
        better = (vv > 0) & (xv * xv > best * vv)
        d = np.where(better, xv / vv, d)
        best = np.where(better, d * xv, best)
    return np.where(np.abs(top) < ZERO_BELOW, f(0), d)


def _weights(g: F32, importance: F32 | None, sigma2: F32) -> F32:
    return g * g if importance is None else group_weights(g, sigma2, np.ascontiguousarray(importance.reshape(-1, 32).T))


def _nibbles(q: U8) -> U8:
    """(32, N) of 4 bits -> (N, 16) bytes."""
    packed: U8 = (q[:16] | q[16:] << 4).T
    return packed


def quantize_iq4_nl(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(N, 32), and as many importances or None -> IQ4_NL records."""
    g = np.ascontiguousarray(x.T)
    scale = _scales(g, _weights(g, importance, in_order(g * g) * f(2 / 32)))
    out = np.zeros(len(x), IQ4_NL.layout)
    out["d"] = scale
    out["qs"] = _nibbles(nearest_value(np.where(scale != 0, f(1) / scale, f(0)) * g))
    return out


def quantize_iq4_xs(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(N, 256), and as many importances or None -> IQ4_XS records."""
    g = np.ascontiguousarray(x.reshape(-1, 32).T)
    sigma2 = in_order(np.ascontiguousarray((x * x).T)) * f(2 / 256)
    scale = _scales(g, _weights(g, importance, np.repeat(sigma2, 8))).reshape(-1, 8).T
    d = -(largest(scale) + f(0)) / f(32)
    steps = nearest_between(np.where(d != 0, f(1) / d, f(0)) * scale, -32, 31)
    exact = d * steps
    inverse = np.where(exact != 0, f(1) / exact, f(0)).T.reshape(-1)
    six = (steps + f(32)).astype(np.uint8).T
    out = np.zeros(len(x), IQ4_XS.layout)
    out["d"] = d
    out["scales_l"] = six[:, ::2] & 15 | (six[:, 1::2] & 15) << 4
    out["scales_h"] = ((six >> 4).astype(np.uint16) << np.arange(0, 16, 2, dtype=np.uint16)).sum(
        axis=1, dtype=np.uint16
    )
    out["qs"] = _nibbles(nearest_value(inverse * g)).reshape(-1, 128)
    return out
