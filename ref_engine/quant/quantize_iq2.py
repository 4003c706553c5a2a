"""Quantising to IQ2_XXS, IQ2_XS and IQ2_S, byte for byte as ggml does. See `fit` and `codebook_search`.

Sources: `quantize_row_iq2_xxs_impl`, `quantize_row_iq2_xs_impl`, `quantize_row_iq2_s_impl`. The first two ask for
importances.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32
from ref_engine.quant.codebook_search import Search, even, fit_points, groups, scale_steps
from ref_engine.quant.fit import ZERO_BELOW, f, fit_positive, group_weights, in_order
from ref_engine.quant.iquants import IQ2_S, IQ2_XS, IQ2_XXS
from ref_engine.quant.lattice import lattice

_ZERO_BELOW_S = f(1e-8)


def _mean_square(x: F32) -> F32:
    """(N, 256) -> (N,)."""
    return in_order(np.ascontiguousarray((x * x).T)) / f(256)


def quantize_iq2_xxs(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(N, 256), and as many importances -> IQ2_XXS records. Raises ValueError without importances."""
    if importance is None:
        raise ValueError("IQ2_XXS asks for importances")
    g = groups(x, 32)
    w = group_weights(g, np.repeat(_mean_square(x), 8), groups(importance, 32))
    negative = even(g, w, g < 0)
    magnitude = np.where(negative, -g, g)
    first, _ = fit_positive(magnitude, w, 4)
    top = first * f(3)
    used = (magnitude.max(axis=0) >= ZERO_BELOW) & (top > 0)
    search = Search(lattice("iq2_xxs", 2), 6, 0.1, "all")
    scale, index, signs = fit_points(search, g, w, negative, top, used, first)
    d, steps = scale_steps(scale.reshape(-1, 8).T)
    seven = (signs & 127).astype(np.uint32) << np.array([0, 7, 14, 21], np.uint32)
    words = seven.sum(axis=1, dtype=np.uint32) | steps.T.reshape(-1).astype(np.uint32) << np.uint32(28)
    out = np.zeros(len(x), IQ2_XXS.layout)
    out["d"] = d
    pairs = np.concatenate([index.astype(np.uint8), words.astype("<u4")[:, None].view(np.uint8)], axis=1)
    out["qs"] = pairs.reshape(-1, 64)
    out[d == 0] = np.zeros((), IQ2_XXS.layout)
    return out


def _nibbles(steps: NDArray[Any]) -> NDArray[Any]:
    """(16, N) of 4 bits -> (N, 8) bytes."""
    packed: NDArray[Any] = (steps[::2] | steps[1::2] << 4).T
    return packed


def quantize_iq2_xs(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(N, 256), and as many importances -> IQ2_XS records. Raises ValueError without importances."""
    if importance is None:
        raise ValueError("IQ2_XS asks for importances")
    g = groups(x, 16)
    w = group_weights(g, np.repeat(_mean_square(x), 16), groups(importance, 16))
    negative = even(g, w, g < 0)
    top = np.where(negative, -g, g).max(axis=0)
    search = Search(lattice("iq2_xs", 2), 9, 0.1, "missed")
    scale, index, signs = fit_points(search, g, w, negative, top, top >= ZERO_BELOW)
    d, steps = scale_steps(scale.reshape(-1, 16).T)
    out = np.zeros(len(x), IQ2_XS.layout)
    out["d"], out["scales"] = d, _nibbles(steps)
    out["qs"] = (index | (signs & 127).astype(np.int32) << 9).reshape(-1, 32)
    out[d == 0] = np.zeros((), IQ2_XS.layout)
    return out


def quantize_iq2_s(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(N, 256), and as many importances or None -> IQ2_S records."""
    g, sigma2 = groups(x, 16), f(2) * in_order(np.ascontiguousarray((x * x).T)) / f(256)
    spread = np.repeat(sigma2, 16)
    w = f(0.25) * spread + g * g if importance is None else group_weights(g, spread, groups(importance, 16))
    top = np.abs(g).max(axis=0)
    search = Search(lattice("iq2_s", 1), 9, 0.1, "missed")
    scale, index, signs = fit_points(search, g, w, g < 0, top, top >= _ZERO_BELOW_S)
    d, steps = scale_steps(scale.reshape(-1, 16).T)
    out = np.zeros(len(x), IQ2_S.layout)
    out["d"], out["scales"] = d * f(0.9875), _nibbles(steps)
    index = index.reshape(-1, 32)
    high = (index >> 8).astype(np.uint8).reshape(-1, 8, 4)
    out["qs"], out["signs"] = index & 255, signs.reshape(-1, 32)
    out["qh"] = high[..., 0] | high[..., 1] << 2 | high[..., 2] << 4 | high[..., 3] << 6
    out["scales"][d == 0] = 0
    return out
