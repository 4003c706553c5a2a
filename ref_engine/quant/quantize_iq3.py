"""Quantising to IQ3_XXS and IQ3_S, byte for byte as ggml does. See `fit` and `codebook_search`.

Sources: `quantize_row_iq3_xxs_impl`, `quantize_row_iq3_s_impl`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32
from ref_engine.quant.codebook_search import Search, even, fit_points, groups, scale_steps
from ref_engine.quant.fit import f, group_weights, in_order
from ref_engine.quant.iquants import IQ3_S, IQ3_XXS
from ref_engine.quant.lattice import lattice

_ZERO_BELOW = f(1e-8)


def _weights(x: F32, importance: F32 | None) -> tuple[F32, F32]:
    """(N, 256) -> groups of 32, (32, 8 N), and the weights of their errors."""
    g = groups(x, 32)
    if importance is None:
        return g, g * g
    sigma2 = f(2) * in_order(np.ascontiguousarray((x * x).T)) / f(256)
    return g, group_weights(g, np.repeat(sigma2, 8), groups(importance, 32))


def quantize_iq3_xxs(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(N, 256), and as many importances or None -> IQ3_XXS records."""
    g, w = _weights(x, importance)
    negative = even(g, w, g < 0)
    top = np.where(negative, -g, g).max(axis=0)
    search = Search(lattice("iq3_xxs", 2), 15, 0.2, "missed")
    scale, index, signs = fit_points(search, g, w, negative, top, top >= _ZERO_BELOW)
    d, steps = scale_steps(scale.reshape(-1, 8).T)
    seven = (signs & 127).astype(np.uint32)
    words = (seven << np.array([0, 7, 14, 21], np.uint32)).sum(axis=1, dtype=np.uint32).reshape(-1, 8)
    words |= steps.T.astype(np.uint32) << np.uint32(28)
    out = np.zeros(len(x), IQ3_XXS.layout)
    out["d"] = d * f(1.0125)
    out["qs"] = index.reshape(-1, 64)
    out["words"] = words.astype("<u4").view(np.uint8)
    out[d == 0] = np.zeros((), IQ3_XXS.layout)
    return out


def _moved_up(groups: NDArray[Any], used: NDArray[np.bool_]) -> NDArray[Any]:
    """(N, 8, ...) with the used groups of each block first, in order; what is behind them becomes zero."""
    order = np.argsort(~used, axis=1, kind="stable")
    n_used = used.sum(axis=1, keepdims=True)
    moved = np.take_along_axis(groups, order[..., None], axis=1)
    return np.where((np.arange(8) < n_used)[..., None], moved, 0)


def quantize_iq3_s(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(N, 256), and as many importances or None -> IQ3_S records.

    A group of 32 zeros makes ggml write the indices and signs of all later groups of the block one place too early
    (not their ninth bits): `quantize_row_iq3_s_impl` goes on to the next group before it moves its pointers. Such
    blocks read back wrong. The bytes are the same here.
    """
    g, w = _weights(x, importance)
    top = np.abs(g).max(axis=0)
    scale, index, signs = fit_points(Search(lattice("iq3_s", 3), 9, 0.2, "all if missed"), g, w, g < 0, top, top != 0)
    d, steps = scale_steps(scale.reshape(-1, 8).T)
    out = np.zeros(len(x), IQ3_S.layout)
    out["d"] = d * f(1.033)
    used = (g != 0).any(axis=0).reshape(-1, 8)
    out["qs"] = _moved_up(index.reshape(-1, 8, 8) & 255, used).reshape(-1, 64)
    out["qh"] = np.packbits((index >> 8).astype(np.uint8).reshape(-1, 8, 8), axis=-1, bitorder="little")[..., 0]
    out["signs"] = _moved_up(signs.reshape(-1, 8, 4), used).reshape(-1, 32)
    out["scales"] = (steps[::2] | steps[1::2] << 4).T
    out["scales"][d == 0] = 0
    return out
