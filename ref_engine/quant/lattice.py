"""Nearest codebook points for the quantisers of the I-quants.

Source: `iq3xs_init_impl`, `iq2xs_init_impl` and `iq3_find_best_neighbour` of ggml. A group of weights, rounded to
levels, names a point of the lattice. If that point is in the codebook it is taken. If not, the search goes over the
codebook's points nearest to it: all at the least distance and at the next one or two larger distances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ModelError
from ref_engine.quant.blocks import F32
from ref_engine.quant.codebooks import codebook, levels
from ref_engine.quant.fit import I32, f, nearest_int


@dataclass(frozen=True)
class Lattice:
    """A codebook prepared for searching.

    ranks:    (n, c) int, the points as ranks of their levels: 0, 1, 2 or 0 .. 7
    index_of: (2^(bits * c),) int32, codebook index by lattice point number, or -1
    near:     lattice point number -> codebook indices nearest to it, for the points that are not in the codebook
    bits:     how far the rank of one coordinate is shifted from the next in a lattice point's number
    """

    ranks: I32
    index_of: I32
    near: Mapping[int, I32]
    bits: int

    def number(self, ranks: I32) -> I32:
        """(c, ...) ranks -> (...) the number of the lattice point."""
        out = np.zeros(ranks.shape[1:], np.int32)
        for i, rank in enumerate(ranks):
            out |= rank << np.int32(self.bits * i)
        return out


@cache
def lattice(name: str, distances: int) -> Lattice:
    """The codebook `name`, with neighbours at so many different distances."""
    ranks = np.searchsorted(levels(name), codebook(name)).astype(np.int32)
    n, c = ranks.shape
    bits = 3 if c == 4 else 2
    index_of = np.full(1 << bits * c, -1, np.int32)
    index_of[(ranks << bits * np.arange(c)).sum(axis=1)] = np.arange(n)
    missing = np.flatnonzero(index_of < 0)
    wanted = missing[:, None] >> bits * np.arange(c) & (1 << bits) - 1
    real = (wanted < len(levels(name))).all(axis=1)  # two bits can hold a rank that three levels have not
    missing, wanted = missing[real], wanted[real]
    near: dict[int, I32] = {}
    for start in range(0, len(missing), 256):
        lists = _nearest(ranks, wanted[start : start + 256], distances)
        near.update(zip(missing[start : start + 256].tolist(), lists, strict=True))
    return Lattice(ranks, index_of, near, bits)


def _nearest(ranks: I32, wanted: NDArray[Any], distances: int) -> list[I32]:
    """For each wanted point the indices at the `distances` least distances, near ones first, then by index."""
    squared = ((ranks[None] - wanted[:, None]) ** 2).sum(axis=-1)
    order = np.argsort(squared, axis=1, kind="stable").astype(np.int32)
    ascending = np.take_along_axis(squared, order, axis=1)
    kinds = np.cumsum(np.diff(ascending, axis=1, prepend=ascending[:, :1]) != 0, axis=1)
    return [row[kind < distances] for row, kind in zip(order, kinds, strict=True)]


def nearest_points(grid: Lattice, x: F32, w: F32, scale: F32, number: I32) -> I32:
    """Codebook indices for groups of weights.

    x, w: (c, N); scale: (N,); number: (N,) of the lattice point that the rounded weights name. Where that point is not
    in the codebook, of its neighbours the first with the least sum(w * (scale * (2 * rank + 1) - x)^2).
    Raises ModelError where such a sum is not finite.
    """
    index = grid.index_of[number]
    off = np.flatnonzero(index < 0)
    off = off[np.argsort(number[off].astype(np.uint16), kind="stable")]
    sorted_ = number[off]
    starts = np.flatnonzero(np.diff(sorted_, prepend=-1))
    n_levels = int(grid.ranks.max()) + 1
    largest = 2 * n_levels * scale + np.abs(x)  # no error is larger
    if not np.isfinite(f(len(x)) * w * largest * largest).all():
        raise ModelError("weights too large for a search in a codebook: the square of an error is not finite")
    x, w, scale, chosen = x[:, off], w[:, off], scale[off], np.empty(len(off), np.int32)
    cost = np.empty((len(x), n_levels, len(off)), np.float32)  # of each coordinate at each level
    for level in range(n_levels):
        difference = scale * f(2 * level + 1) - x
        cost[:, level] = w * difference * difference
    for point, start, stop in zip(sorted_[starts].tolist(), starts, [*starts[1:], len(off)], strict=True):
        candidates = grid.near[point]
        ranks = grid.ranks[candidates].T
        error = cost[0, :, start:stop].take(ranks[0], axis=0)
        for i in range(1, len(x)):
            error += cost[i, :, start:stop].take(ranks[i], axis=0)
        chosen[start:stop] = candidates[error.argmin(axis=0)]
    index[off] = chosen
    return index


def ranks_of(steps: F32, top: int) -> I32:
    """Numbers in units in which level r is 2 r + 1 -> the nearest ranks 0 .. top."""
    ranks: I32 = np.clip(nearest_int(f(0.5) * (steps - f(1))), 0, top)
    return ranks
