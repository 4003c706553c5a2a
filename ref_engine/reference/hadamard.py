"""Rotations that spread large features over all, so that numbers of few bits lose less (Ashkboos et al. 2024)."""

from __future__ import annotations

import numpy as np

from ref_engine.place import joined
from ref_engine.reference.sums import F32


def hadamard(x: F32) -> F32:
    """x times the orthonormal Walsh-Hadamard matrix: (..., n) -> (..., n), n a power of two.

    A rotation: dot products keep their values, but large features are spread over all. Sylvester's order, by the fast
    transform.
    """
    n = x.shape[-1]
    y, step = x, 1
    while step < n:
        pairs = y.reshape(*x.shape[:-1], n // (2 * step), 2, step)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        y = joined(a + b, a - b).reshape(x.shape)
        step *= 2
    return y * np.float32(1 / np.sqrt(n))


def spread(x: F32, width: int) -> F32:
    """`hadamard` of each run of `width` features of the last axis; 1: x itself. Twice is nothing but rounding."""
    if width == 1:
        return x
    return hadamard(x.reshape(*x.shape[:-1], -1, width)).reshape(x.shape)
