"""The search that the quantisers to IQ2 and IQ3 share: a scale for a group of weights, and codebook points at it.

A number of scales around largest / (2 * top rank + 1) is tried; each names the nearest lattice points, and each point
that is not in the codebook gives way to a neighbour (see `lattice`). The best scale is kept, then improved by least
squares. Groups stand side by side, (n, N), as in `fit`.
Sources: `quantize_row_iq2_xxs_impl`, `..._iq2_xs_impl`, `..._iq2_s_impl`, `..._iq3_xxs_impl`, `..._iq3_s_impl`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32
from ref_engine.quant.fit import I32, f, in_order, nearest_between
from ref_engine.quant.lattice import Lattice, nearest_points, ranks_of

U8 = NDArray[Any]  # uint8; a type checker takes shifted bytes for larger integers


@dataclass(frozen=True)
class Search:
    """How one type searches.

    tries, step: scales tried are those of (2 * top rank + 1) + i * step for i in -tries .. tries
    refit: which points are looked up once more at the best scale: those that were not met exactly; all, if one was
        not; or always all
    """

    grid: Lattice
    tries: int
    step: float
    refit: Literal["missed", "all if missed", "all"]

    @property
    def top_rank(self) -> int:
        return int(self.grid.ranks.max())

    @property
    def width(self) -> int:
        """Weights in a point."""
        return int(self.grid.ranks.shape[1])


def groups(x: F32, n: int) -> F32:
    """(blocks, 256) -> (n, blocks * 256 / n)."""
    return np.ascontiguousarray(x.reshape(-1, n).T)


def even(x: F32, w: F32, negative: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Signs, (n, N), with an even number of minus in each group of 8: where it is odd, the cheapest one is turned."""
    eights = len(x) // 8
    signs = negative.reshape(eights, 8, -1).copy()
    odd = signs.sum(axis=1) % 2 == 1
    cheapest = (w * x * x).reshape(eights, 8, -1).argmin(axis=1)
    for i in range(8):
        signs[:, i] ^= odd & (cheapest == i)
    return signs.reshape(negative.shape)


def scale_steps(scale: F32) -> tuple[F32, U8]:
    """(G, N) group scales -> a 31st of the largest (N,), and the scales as 2 s + 1 of those: s in 0 .. 15, (G, N)."""
    d = np.maximum(scale.max(axis=0), f(0)) / f(31)
    return d, nearest_between(f(0.5) * (f(1) / d * scale - f(1)), 0, 15).astype(np.uint8)


def fit_points(
    search: Search,
    x: F32,
    w: F32,
    negative: NDArray[np.bool_],
    top: F32,
    used: NDArray[np.bool_],
    start: F32 | None = None,
) -> tuple[F32, I32, U8]:
    """Scales (N,), codebook indices (N, points) and sign bytes (N, n / 8) of groups; those not used are zero.

    top: (N,) the value that a scale of 1 / (2 * top rank + 1) is a fraction of; start: (N,) the scale where no try has
    a finite merit, None for that fraction.
    """
    n, groups_ = x.shape
    at = np.flatnonzero(used)
    scale, index = np.zeros(groups_, np.float32), np.zeros((groups_, n // search.width), np.int32)
    signs = np.zeros((groups_, n // 8), np.uint8)
    if len(at):
        magnitude = np.where(negative[:, at], -x[:, at], x[:, at])
        found, points = _best_scale(search, magnitude, w[:, at], top[at], None if start is None else start[at])
        bits = np.packbits(negative[:, at].T.reshape(-1, n // 8, 8), axis=-1, bitorder="little")[..., 0]
        signs[at] = np.where((found < 0)[:, None], ~bits, bits)
        scale[at], index[at] = np.abs(found), points.T
    return scale, index, signs


def _best_scale(search: Search, x: F32, w: F32, top: F32, start: F32 | None) -> tuple[F32, I32]:
    """Scale (N,) and indices (points, N) for magnitudes x (n, N)."""
    root, n = np.sqrt(w), x.shape[1]
    steps = f(2 * search.top_rank + 1)
    scale, best = top / steps if start is None else start, np.zeros(n, np.float32)
    points = len(x) // search.width
    index, exact = np.zeros((points, n), np.int32), np.full((points, n), search.refit == "missed")
    for i in range(-search.tries, search.tries + 1):
        inverse = (steps + f(i) * f(search.step)) / top
        tried, met = _points(search, x, root, inverse, f(1) / inverse)
        xq, qq = _sums(search.grid, tried, x, w)
        better = (qq > 0) & (xq * xq > best * qq)
        scale = np.where(better, xq / qq, scale)
        best = np.where(better, scale * xq, best)
        index, exact = np.where(better, tried, index), np.where(better, met, exact)
    missed = np.full(n, True) if search.refit == "all" else ~exact.all(axis=0)
    again = np.flatnonzero(missed & (scale > 0))
    if len(again):
        xa, wa, sa = x[:, again], w[:, again], scale[again]
        refit, _ = _points(search, xa, root[:, again], f(1) / sa, sa)
        if search.refit == "missed":
            refit = np.where(exact[:, again], index[:, again], refit)
        index[:, again] = refit
        xq, qq = _sums(search.grid, refit, xa, wa)
        scale[again] = np.where(qq > 0, xq / qq, sa)
    return scale, index


def _points(search: Search, x: F32, root: F32, inverse: F32, scale: F32) -> tuple[I32, NDArray[np.bool_]]:
    """(points, N) codebook indices at this scale, and whether each was met exactly."""
    c, n = search.width, len(x) // search.width

    def flat(v: NDArray[Any]) -> NDArray[Any]:
        return v.reshape(n, c, -1).transpose(1, 0, 2).reshape(c, -1)

    number = search.grid.number(flat(ranks_of(inverse * x, search.top_rank)))
    index = nearest_points(search.grid, flat(x), flat(root), np.tile(scale, n), number)
    return index.reshape(n, -1), (search.grid.index_of[number] >= 0).reshape(n, -1)


def _sums(grid: Lattice, index: I32, x: F32, w: F32) -> tuple[F32, F32]:
    """sum(w x q) and sum(w q q) over a group, q = 2 * rank + 1; index: (points, N)."""
    q = (2 * grid.ranks + 1).astype(np.float32)[index]  # (points, N, c)
    q = q.transpose(0, 2, 1).reshape(len(x), -1)
    return in_order(w * x * q), in_order(w * q * q)
