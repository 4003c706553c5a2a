"""Nearest codebook points for the quantisers of the I-quants.

Source: `iq3xs_init_impl`, `iq2xs_init_impl` and `iq3_find_best_neighbour` of ggml. A group of weights, rounded to
levels, names a point of the lattice. If that point is in the codebook it is taken. If not, the search goes over the
codebook's points nearest to it: all at the least distance and at the next one or two larger distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ModelError
from ref_engine.quant.blocks import F32
from ref_engine.quant.codebooks import codebook, levels
from ref_engine.quant.fit import I32, f, nearest_int

_POINTS_AT_A_TIME = 1 << 12
TOO_LARGE = "weights too large for a search in a codebook: the square of an error is not finite"


@dataclass(frozen=True)
class Lattice:
    """A codebook prepared for searching.

    ranks:    (n, c) int, the points as ranks of their levels: 0, 1, 2 or 0 .. 7
    index_of: (2^(bits * c),) int32, codebook index by lattice point number, or -1
    near:     codebook indices, list after list: those nearest to each lattice point that is not in the codebook
    start, count: (2^(bits * c),) int32, where in `near` a lattice point's list begins, and how long it is
    bits:     how far the rank of one coordinate is shifted from the next in a lattice point's number
    """

    ranks: I32
    index_of: I32
    near: I32
    start: I32
    count: I32
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
    lists: list[I32] = []
    for first in range(0, len(missing), 256):
        lists += _nearest(ranks, wanted[first : first + 256], distances)
    start, count = np.zeros(len(index_of), np.int32), np.zeros(len(index_of), np.int32)
    count[missing] = [len(one) for one in lists]
    start[missing] = np.cumsum(count[missing]) - count[missing]
    return Lattice(ranks, index_of, np.concatenate(lists), start, count, bits)


def _nearest(ranks: I32, wanted: NDArray[Any], distances: int) -> list[I32]:
    """For each wanted point the indices at the `distances` least distances, near ones first, then by index."""
    # |a - b|^2 = |a|^2 + |b|^2 - 2 ab, at most n * 49: one byte, which sorts fast
    crossed = wanted.astype(np.float32) @ ranks.T.astype(np.float32)
    squared = ((wanted**2).sum(axis=1)[:, None] + (ranks**2).sum(axis=1) - 2 * crossed).astype(np.uint8)
    order = np.argsort(squared, axis=1, kind="stable").astype(np.int32)
    ascending = np.take_along_axis(squared, order, axis=1)
    kinds = np.cumsum(np.diff(ascending, axis=1, prepend=ascending[:, :1]) != 0, axis=1)
    return [row[kind < distances] for row, kind in zip(order, kinds, strict=True)]


def nearest_points(grid: Lattice, x: F32, w: F32, scale: F32, number: I32, levels: F32 | None = None) -> I32:
    """Codebook indices for groups of weights.

    x, w: (c, N); scale: (N,); number: (N,) of the lattice point that the rounded weights name; levels: (ranks, N), what
    each rank stands for, None for 2 * rank + 1. Where that point is not in the codebook, of its neighbours the first
    with the least sum(w * (scale * level - x)^2).
    Raises ModelError where such a sum is not finite.
    """
    index = grid.index_of[number]
    n_levels = int(grid.ranks.max()) + 1
    if levels is None:
        levels = np.broadcast_to(2 * np.arange(n_levels, dtype=np.float32)[:, None] + f(1), (n_levels, x.shape[1]))
    largest = 2 * n_levels * scale + np.abs(x)  # no error is larger
    if not np.isfinite(f(len(x)) * w * largest * largest).all():
        raise ModelError(TOO_LARGE)
    off = np.flatnonzero(index < 0)
    for first in range(0, len(off), _POINTS_AT_A_TIME):
        at = off[first : first + _POINTS_AT_A_TIME]
        index[at] = _best_neighbours(grid, x[:, at], w[:, at], scale[at], number[at], levels[:, at])
    return index


def _best_neighbours(grid: Lattice, x: F32, w: F32, scale: F32, number: I32, levels: F32) -> I32:
    """`nearest_points` for points that are not in the codebook: all pairs of a point and a neighbour side by side."""
    n = x.shape[1]
    count = grid.count[number]
    first = np.cumsum(count) - count
    owner = np.repeat(np.arange(n), count)
    candidate = grid.near[np.arange(len(owner)) + np.repeat(grid.start[number] - first, count)]
    error = np.zeros(len(owner), np.float32)
    for i in range(len(x)):
        difference = scale * levels - x[i]
        cost = w[i] * difference * difference  # (levels, n) of this coordinate at each level
        error += cost.reshape(-1).take(grid.ranks[:, i].take(candidate) * n + owner)
    best = np.flatnonzero(error == np.minimum.reduceat(error, first).take(owner))
    chosen: I32 = candidate[best[np.diff(owner[best], prepend=-1) != 0]]  # of equals the first
    return chosen


def ranks_of(steps: F32, top: int) -> I32:
    """Numbers in units in which level r is 2 r + 1 -> the nearest ranks 0 .. top."""
    ranks: I32 = np.clip(nearest_int(f(0.5) * (steps - f(1))), 0, top)
    return ranks
