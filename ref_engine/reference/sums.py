"""Sums of float32 in a fixed order, so that every backend gets the same bits.

Floating-point addition is not associative: a sum is only defined once its order is. The order here is the one that
vector units like: sixteen lanes, lane l adding the elements l, l + 16, l + 32, ... one after the other, then a tree
that folds the upper half of the lanes onto the lower until one is left. A length that is no multiple of sixteen is
filled up with zeros. Multiply and add round separately.

Arrays of a GPU are outside this promise: they are added by its own library, which is faster there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
LANES = 16
_FLOATS_AT_A_TIME = 1 << 16  # temporaries that stay in a core's cache


def _padded(x: F32) -> F32:
    """(..., n) -> (..., n rounded up to a multiple of LANES), filled with zeros."""
    missing = -x.shape[-1] % LANES
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)]) if missing else x


def _fold(lanes: F32) -> F32:
    """(..., 16) -> (...): 16 lanes to 8, 4, 2, 1, each time upper half onto lower half."""
    n = LANES
    while n > 1:
        n //= 2
        lanes = lanes[..., :n] + lanes[..., n : 2 * n]
    return lanes[..., 0]


def lane_sum(x: F32) -> F32:
    """Sum over the last axis: (..., n) -> (...)."""
    if not isinstance(x, np.ndarray):
        return x.sum(axis=-1)
    x = _padded(x)
    acc = np.zeros((*x.shape[:-1], LANES), np.float32)
    for i in range(0, x.shape[-1], LANES):
        acc = acc + x[..., i : i + LANES]
    return _fold(acc)


def lane_dot(x: F32, y: F32) -> F32:
    """lane_sum of x * y over the first axis: (n, ...), (n, ...) -> (...), broadcast against each other.

    For arrays whose last axis is long and not the one to sum over, as the states of recurrent layers are.
    """
    if not isinstance(x, np.ndarray):
        return (x * y).sum(axis=0)
    acc = np.zeros((LANES, *np.broadcast_shapes(x.shape[1:], y.shape[1:])), np.float32)
    for i in range(0, x.shape[0], LANES):
        acc[: x.shape[0] - i] += x[i : i + LANES] * y[i : i + LANES]
    return _fold(np.moveaxis(acc, 0, -1))


def lane_matmul(a: F32, b: F32) -> F32:
    """All dot products of rows of a with rows of b: (T, n), (S, n) -> (T, S), each added as in `lane_sum`."""
    if not isinstance(a, np.ndarray):
        return a @ b.T
    a, b = _padded(a), _padded(b)
    out = np.empty((a.shape[0], b.shape[0]), np.float32)
    rows = max(1, _FLOATS_AT_A_TIME // (LANES * a.shape[0]))
    at = np.ascontiguousarray(a.T)[:, :, None]  # (n, T, 1), lanes first: the innermost loop runs over rows of b
    for s in range(0, b.shape[0], rows):
        bt = np.ascontiguousarray(b[s : s + rows].T)[:, None, :]
        acc = np.zeros((LANES, a.shape[0], bt.shape[-1]), np.float32)
        for i in range(0, a.shape[1], LANES):
            acc += at[i : i + LANES] * bt[i : i + LANES]
        out[:, s : s + rows] = _fold(acc.transpose(1, 2, 0))
    return out
