"""Quantising to IQ1_S and IQ1_M, byte for byte as ggml does. See `fit` for the arithmetic, `lattice` for the points.

With three levels the best split of a group is found by trying all: the weights are sorted, the first i1 are -1, those
up to i2 are 0, the rest 1, each shifted by an eighth up or down. Prefix sums give the merit of a split at once.
Sources: `quantize_row_iq1_s_impl`, `quantize_row_iq1_m_impl`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32
from ref_engine.quant.codebook_search import groups
from ref_engine.quant.fit import I32, f, group_weights, in_order, nearest_between
from ref_engine.quant.iquants import IQ1_M, IQ1_S
from ref_engine.quant.lattice import lattice, nearest_points

UP = np.array([-0.875, 0.125, 1.125], np.float32)  # what ranks 0, 1, 2 stand for with the shift of an eighth up
DOWN = np.array([-1.125, -0.125, 0.875], np.float32)
_ZERO_BELOW_S, _ZERO_BELOW_M = f(1e-12), f(1e-7)


@dataclass
class _Best:
    """The best split so far of N groups; choice is -1 where there was none yet."""

    scale: F32
    merit: F32
    i1: I32
    i2: I32
    choice: I32

    @classmethod
    def none(cls, n: int) -> _Best:
        never = np.full(n, -1, np.int32)
        lowest = np.full(n, -np.finfo(np.float32).max, np.float32)
        return cls(np.zeros(n, np.float32), lowest, never.copy(), never.copy(), never.copy())

    def offer(self, i1: int, i2: int, choice: int, xq: F32, qq: F32) -> None:
        at = np.flatnonzero((qq > 0) & (xq * xq > self.merit * qq))
        self.scale[at] = xq[at] / qq[at]
        self.merit[at] = self.scale[at] * xq[at]
        self.i1[at], self.i2[at], self.choice[at] = i1, i2, choice


def _prefix(terms: F32) -> F32:
    """(n, N) -> (n + 1, N): sums of the first 0, 1, ... n."""
    out = np.zeros((len(terms) + 1, terms.shape[1]), np.float32)
    for i, term in enumerate(terms):
        out[i + 1] = out[i] + term
    return out


def _split_32(x: F32, w: F32, order: NDArray[np.int64]) -> _Best:
    """Splits of groups of 32 (IQ1_S); choice 0: shifted up, 1: down."""
    sum_x = _prefix(np.take_along_axis(w * x, order, axis=0))
    sum_w = _prefix(np.take_along_axis(w, order, axis=0))
    best, n = _Best.none(x.shape[1]), len(x)
    low, high = [], []
    for v in (UP, DOWN):
        low.append((sum_x * v[0], sum_w * v[0] * v[0]))
        high.append(((sum_x[n] - sum_x) * v[2], (sum_w[n] - sum_w) * v[2] * v[2]))
    for i1 in range(n + 1):
        for i2 in range(i1, n + 1):
            middle_x, middle_w = sum_x[i2] - sum_x[i1], sum_w[i2] - sum_w[i1]
            for choice, v in enumerate((UP, DOWN)):
                xq = low[choice][0][i1] + middle_x * v[1] + high[choice][0][i2]
                qq = low[choice][1][i1] + middle_w * v[1] * v[1] + high[choice][1][i2]
                best.offer(i1, i2, choice, xq, qq)
    return best


def _split_16(x: F32, w: F32, order: NDArray[np.int64]) -> _Best:
    """Splits of groups of 16 (IQ1_M), each half of 8 with its own shift; choice 0: up up, 1: up down, 2: down up, 3."""
    n, best = len(x), _Best.none(x.shape[1])
    wx, ws = np.take_along_axis(w * x, order, axis=0), np.take_along_axis(w, order, axis=0)
    merits = []
    for half in range(2):
        mine = (order >= 8) == bool(half)
        px, pw = _prefix(np.where(mine, wx, f(0))), _prefix(np.where(mine, ws, f(0)))
        per_shift = []
        for v in (UP, DOWN):
            first, second = v[0] * v[0] - v[1] * v[1], v[1] * v[1] - v[2] * v[2]
            per_shift.append((px[n] * v[2], pw[n] * v[2] * v[2], pw * first, pw * second))
        merits.append((px, per_shift))
    for i1 in range(n + 1):
        for i2 in range(i1, n + 1):
            halves = []
            for px, per_shift in merits:
                both = px[i1] + px[i2]
                halves.append([(tx - both, tw + a[i1] + b[i2]) for tx, tw, a, b in per_shift])
            for choice in range(4):
                (ax, aw), (bx, bw) = halves[0][choice >> 1], halves[1][choice & 1]
                best.offer(i1, i2, choice, ax + bx, aw + bw)
    return best


def _fit(
    x: F32, w: F32, best: _Best, order: NDArray[np.int64], used: NDArray[np.bool_]
) -> tuple[F32, I32, NDArray[np.bool_]]:
    """Scale (N,), codebook indices (points, N), and whether each point is shifted down, from the best splits."""
    n, points = len(x), len(x) // 8
    place = np.arange(n)[:, None]
    ranks = np.zeros(x.shape, np.int32)
    sorted_ranks = (place >= best.i1).astype(np.int32) + (place >= best.i2)
    np.put_along_axis(ranks, order, sorted_ranks, axis=0)
    turned = best.scale < 0
    ranks = np.where(turned, 2 - ranks, ranks)
    scale = np.where(used, np.abs(best.scale), f(0))
    choice = best.choice if points == 2 else 3 * best.choice  # one shift for all points is like the same for both
    choice = np.where(turned, 3 - choice, choice)
    halves = np.stack([choice >> 1, choice & 1]).astype(bool) & used
    down = halves if points == 2 else np.repeat(halves[:1], points, axis=0)
    grid = lattice("iq1", 3)

    def flat(v: NDArray[Any]) -> NDArray[Any]:
        return v.reshape(points, 8, -1).transpose(1, 0, 2).reshape(8, -1)

    levels = np.where(down.reshape(-1), DOWN[:, None], UP[:, None])
    number = np.where(np.tile(used, points), grid.number(flat(ranks)), grid.number(np.zeros((8, 1), np.int32)))
    index = nearest_points(grid, flat(x), flat(w), np.tile(scale, points), number, levels).reshape(points, -1)
    missed = (grid.index_of[number] < 0).reshape(points, -1).any(axis=0)
    q = _values(index, down)
    xq, qq = in_order(w * q * x), in_order(w * q * q)
    scale = np.where(missed & (xq > 0) & (qq > 0), xq / qq, scale)
    return scale, np.where(used, index, 0), down


def _values(index: I32, down: NDArray[np.bool_]) -> F32:
    """(points, N) indices and shifts -> (8 * points, N) values."""
    ranks = lattice("iq1", 3).ranks[index].transpose(0, 2, 1)  # (points, 8, N)
    values = np.where(down[:, None], DOWN[ranks], UP[ranks])
    return values.reshape(-1, index.shape[1])


def _prepare(x: F32, importance: F32 | None, n: int) -> tuple[F32, F32, NDArray[np.int64]]:
    """Groups of n, (n, N); their weights; the order of ascending values, equal ones as they come."""
    g = groups(x, n)
    sigma2 = f(2) * in_order(np.ascontiguousarray((x * x).T)) / f(256)
    w = g * g if importance is None else group_weights(g, np.repeat(sigma2, 256 // n), groups(importance, n))
    return g, w, np.argsort(g, axis=0, kind="stable")


def _steps(scale: F32) -> tuple[F32, NDArray[Any]]:
    """(G, N) scales -> a fifteenth of the largest (N,), and the scales as 2 s + 1 of those: s in 0 .. 7, (G, N)."""
    d = np.maximum(scale.max(axis=0), f(0)) / f(15)
    return d, nearest_between(f(0.5) * (f(1) / d * scale - f(1)), 0, 7).astype(np.uint16)


def quantize_iq1_s(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(N, 256), and as many importances -> IQ1_S records. Raises ValueError without importances."""
    if importance is None:
        raise ValueError("IQ1_S asks for importances")
    g, w, order = _prepare(x, importance, 32)
    best = _split_32(g, w, order)
    used = (np.abs(g).max(axis=0) >= _ZERO_BELOW_S) & (best.choice >= 0)
    scale, index, down = _fit(g, w, best, order, used)
    d, steps = _steps(scale.reshape(-1, 8).T)
    out = np.zeros(len(x), IQ1_S.layout)
    out["d"] = d * f(1.125)
    out["qs"] = (index & 255).T.reshape(-1, 32)
    top = ((index >> 8).astype(np.uint16) << np.array([[0], [3], [6], [9]], np.uint16)).sum(axis=0, dtype=np.uint16)
    scales = (steps.T | down[0].reshape(-1, 8).astype(np.uint16) << 3) << 12
    out["qh"] = top.reshape(-1, 8) | np.where(d[:, None] != 0, scales, 0)
    return out


def quantize_iq1_m(x: F32, importance: F32 | None) -> NDArray[Any]:
    """(N, 256), and as many importances or None -> IQ1_M records."""
    g, w, order = _prepare(x, importance, 16)
    best = _split_16(g, w, order)
    used = (np.abs(g).max(axis=0) >= _ZERO_BELOW_M) & (best.choice >= 0)
    scale, index, down = _fit(g, w, best, order, used)
    d, steps = _steps(scale.reshape(-1, 16).T)
    q = _values(index, down) * (2 * steps.T.reshape(-1) + 1).astype(np.float32)

    def whole(v: F32) -> F32:
        return np.ascontiguousarray(v.T.reshape(-1, 256).T)

    xq, qq = in_order(whole(w * q * g)), in_order(whole(w * q * q))
    d_stored = (np.where(qq > 0, xq / qq, d) * f(1.1125)).astype(np.float16).view(np.uint16)
    out = np.zeros(len(x), IQ1_M.layout)
    out["qs"] = (index & 255).T.reshape(-1, 32)
    shifts = np.where(np.repeat(d != 0, 16), down, False).astype(np.int32)
    nibbles = index >> 8 | shifts << 3
    out["qh"] = (nibbles[0] | nibbles[1] << 4).reshape(-1, 16)
    three = (steps.T.reshape(-1, 4, 4) << np.array([0, 3, 6, 9], np.uint16)).sum(axis=-1, dtype=np.uint16)
    parts = (d_stored[:, None] >> np.array([0, 4, 8, 12], np.uint16) & 15) << 12
    out["scales"] = np.where(d[:, None] != 0, three | parts, 0)
    return out
