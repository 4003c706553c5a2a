"""Quantising to IQ3_XXS and IQ3_S, byte for byte as ggml does. See `fit` for the arithmetic, `lattice` for the points.

Sources: `quantize_row_iq3_xxs_impl`, `quantize_row_iq3_s_impl`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32
from ref_engine.quant.fit import I32, f, group_weights, in_order, nearest_between
from ref_engine.quant.iquants import IQ3_S, IQ3_XXS
from ref_engine.quant.lattice import Lattice, lattice, nearest_points, ranks_of

U8 = NDArray[Any]  # uint8; a type checker takes shifted bytes for larger integers
_ZERO_BELOW = f(1e-8)


def _weights(x: F32, importance: F32 | None) -> tuple[F32, F32]:
    """(N, 256) -> groups of 32, (32, 8 N), and the weights of their errors."""
    g = np.ascontiguousarray(x.reshape(-1, 32).T)
    if importance is None:
        return g, g * g
    sigma2 = f(2) * in_order(np.ascontiguousarray((x * x).T)) / f(256)
    return g, group_weights(g, np.repeat(sigma2, 8), np.ascontiguousarray(importance.reshape(-1, 32).T))


def _even(x: F32, w: F32, negative: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Signs, (32, N), with an even number of minus in each group of 8: where it is odd, the cheapest one is turned."""
    signs = negative.reshape(4, 8, -1).copy()
    odd = signs.sum(axis=1) % 2 == 1
    cheapest = (w * x * x).reshape(4, 8, -1).argmin(axis=1)
    for i in range(8):
        signs[:, i] ^= odd & (cheapest == i)
    return signs.reshape(negative.shape)


def _sums(grid: Lattice, index: I32, x: F32, w: F32) -> tuple[F32, F32]:
    """sum(w x q) and sum(w q q) over the 32 weights, q = 2 * rank + 1; index: (8, N)."""
    q = (2 * grid.ranks + 1).astype(np.float32)[index]  # (8, N, 4)
    q = q.transpose(0, 2, 1).reshape(32, -1)
    return in_order(w * x * q), in_order(w * q * q)


def _points(grid: Lattice, x: F32, root: F32, inverse: F32, scale: F32) -> tuple[I32, NDArray[np.bool_]]:
    """(8, N) codebook indices for 32 weights at this scale, and whether each was met exactly."""
    ranks = ranks_of(inverse * x, 7).reshape(8, 4, -1)
    number = grid.number(ranks.transpose(1, 0, 2)).reshape(-1)  # (8 * N,)

    def flat(v: F32) -> F32:
        return v.reshape(8, 4, -1).transpose(1, 0, 2).reshape(4, -1)

    index = nearest_points(grid, flat(x), flat(root), np.tile(scale, 8), number)
    return index.reshape(8, -1), (grid.index_of[number] >= 0).reshape(8, -1)


def _search(grid: Lattice, x: F32, w: F32, top: F32, tries: int, refit_all: bool) -> tuple[F32, I32]:
    """Scale (N,) and indices (8, N) for magnitudes x (32, N) with largest value `top` (N,)."""
    root = np.sqrt(w)
    n = x.shape[1]
    scale, best = top / f(15), np.zeros(n, np.float32)
    index, exact = np.zeros((8, n), np.int32), np.full((8, n), not refit_all)
    for step in range(-tries, tries + 1):
        inverse = (f(15) + f(step) * f(0.2)) / top
        tried, met = _points(grid, x, root, inverse, f(1) / inverse)
        xq, qq = _sums(grid, tried, x, w)
        better = (qq > 0) & (xq * xq > best * qq)
        scale = np.where(better, xq / qq, scale)
        best = np.where(better, scale * xq, best)
        index, exact = np.where(better, tried, index), np.where(better, met, exact)
    again = np.flatnonzero(~exact.all(axis=0) & (scale > 0))
    if len(again):
        xa, wa, sa = x[:, again], w[:, again], scale[again]
        refit, _ = _points(grid, xa, root[:, again], f(1) / sa, sa)
        if not refit_all:
            refit = np.where(exact[:, again], index[:, again], refit)
        index[:, again] = refit
        xq, qq = _sums(grid, refit, xa, wa)
        scale[again] = np.where(qq > 0, xq / qq, sa)
    return scale, index


def _sign_bytes(negative: NDArray[np.bool_]) -> U8:
    """(32, N) -> (N, 4)."""
    return np.packbits(negative.T.reshape(-1, 4, 8), axis=-1, bitorder="little")[..., 0]


def _scale_steps(scale: F32) -> tuple[F32, U8]:
    """(8, N) group scales -> a 31st of the largest (N,), and the scales as 2 s + 1 of those: s in 0 .. 15, (8, N)."""
    d = np.maximum(scale.max(axis=0), f(0)) / f(31)
    return d, nearest_between(f(0.5) * (f(1) / d * scale - f(1)), 0, 15).astype(np.uint8)


def _fit(
    x: F32, w: F32, negative: NDArray[np.bool_], grid: Lattice, floor: np.float32, tries: int, refit_all: bool
) -> tuple[F32, I32, U8]:
    """Scales (N,), indices (N, 8) and sign bytes (N, 4) of groups of 32; groups below `floor` are all zero."""
    magnitude = np.where(negative, -x, x)
    top = magnitude.max(axis=0)
    used = np.flatnonzero(~(top < floor) & (top != 0))
    scale = np.zeros(len(top), np.float32)
    index = np.zeros((len(top), 8), np.int32)
    signs = np.zeros((len(top), 4), np.uint8)
    if len(used):
        found, points = _search(grid, magnitude[:, used], w[:, used], top[used], tries, refit_all)
        flipped = (found < 0)[:, None]
        scale[used], index[used] = np.abs(found), points.T
        bits = _sign_bytes(negative[:, used])
        signs[used] = np.where(flipped, ~bits, bits)
    return scale, index, signs


def quantize_iq3_xxs(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(N, 256), and as many importances or None -> IQ3_XXS records."""
    g, w = _weights(x, importance)
    scale, index, signs = _fit(g, w, _even(g, w, g < 0), lattice("iq3_xxs", 2), _ZERO_BELOW, 15, refit_all=False)
    d, steps = _scale_steps(scale.reshape(-1, 8).T)
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
    scale, index, signs = _fit(g, w, g < 0, lattice("iq3_s", 3), f(0), 9, refit_all=True)
    d, steps = _scale_steps(scale.reshape(-1, 8).T)
    out = np.zeros(len(x), IQ3_S.layout)
    out["d"] = d * f(1.033)
    used = (g != 0).any(axis=0).reshape(-1, 8)
    out["qs"] = _moved_up(index.reshape(-1, 8, 8) & 255, used).reshape(-1, 64)
    out["qh"] = np.packbits((index >> 8).astype(np.uint8).reshape(-1, 8, 8), axis=-1, bitorder="little")[..., 0]
    out["signs"] = _moved_up(signs.reshape(-1, 8, 4), used).reshape(-1, 32)
    out["scales"] = (steps[::2] | steps[1::2] << 4).T
    out["scales"][d == 0] = 0
    return out
