"""How far two arrays are apart.

Values that are not finite never enter a sum. The same infinity on both sides, or NaN on both, is agreement and counted
as `same_nonfinite`; anything else that is not finite on either side is counted as `clashes`, and makes every distance
infinite, so that it can hide in no mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Distance:
    """How far `got` is from `want`. `worst` is the index of the largest difference, None for empty arrays."""

    size: int
    nmse: float  # sum (got - want)² / sum want²
    max_abs: float
    max_ulp: float  # float32 values between the two; inf where one of them is not finite
    median_ulp: float
    worst: tuple[int, ...] | None
    got: float  # at `worst`
    want: float
    same_nonfinite: int  # the same infinity, or NaN, on both sides
    clashes: int  # not finite on one side, or differently on each


def distance(got: Array, want: Array) -> Distance:
    """Compare two arrays of one shape. Integers and booleans count as their values.

    Raises ValueError for shapes that differ.
    """
    got, want = _pair(got, want)
    if got.size == 0:
        return Distance(0, 0.0, 0.0, 0.0, 0.0, None, 0.0, 0.0, 0, 0)
    finite = np.isfinite(got) & np.isfinite(want)
    same = ~finite & _same(got, want)
    clash = ~finite & ~same
    steps = ulps(got, want)
    difference = np.zeros(got.shape)
    np.subtract(got, want, out=difference, where=finite)
    np.abs(difference, out=difference)
    difference[clash] = np.inf
    worst = int(difference.argmax())
    return Distance(
        size=got.size,
        nmse=nmse(got, want),
        max_abs=float(difference.flat[worst]),
        max_ulp=float(steps.max()),
        median_ulp=float(np.median(steps)),
        worst=tuple(int(i) for i in np.unravel_index(worst, got.shape)),
        got=float(got.flat[worst]),
        want=float(want.flat[worst]),
        same_nonfinite=int(same.sum()),
        clashes=int(clash.sum()),
    )


def nmse(got: Array, want: Array) -> float:
    """Normalised mean squared error: sum (got - want)² / sum want², in float64.

    0 where both are all zero; inf where only `want` is, or where something not finite has another value opposite.
    """
    got, want = _pair(got, want)
    return float(_nmse(got.reshape(1, -1), want.reshape(1, -1))[0])


def row_nmse(got: Array, want: Array) -> NDArray[np.float64]:
    """The same for each index of the first axis (each token, as a rule): (T, ...) -> (T,)"""
    got, want = _pair(got, want)
    if got.ndim == 0:
        raise ValueError("a single number has no rows")
    width = math.prod(got.shape[1:])
    return _nmse(got.reshape(got.shape[0], width), want.reshape(got.shape[0], width))


def max_abs(got: Array, want: Array) -> float:
    """The largest difference; inf where a value that is not finite has another opposite."""
    return distance(got, want).max_abs


def ulps(got: Array, want: Array) -> NDArray[np.float64]:
    """How many steps from one float32 to the next lie between the two, element by element.

    Both are rounded to float32 first; +0 and -0 are the same number. Across infinity and NaN: 0 where they agree, else
    inf. float64 holds every such distance exactly (at most 2**32).
    """
    got, want = _pair(got, want)
    with np.errstate(over="ignore"):
        a, b = got.astype(np.float32), want.astype(np.float32)
    steps = np.abs(_ordinal(a) - _ordinal(b)).astype(np.float64)
    odd = ~(np.isfinite(a) & np.isfinite(b))
    return np.where(odd, np.where(_same(a, b), 0.0, np.inf), steps)


def worst_index(got: Array, want: Array) -> tuple[int, ...] | None:
    """Where the two differ most; None for empty arrays."""
    return distance(got, want).worst


def _nmse(got: NDArray[np.float64], want: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, n) twice -> (R,)"""
    finite = np.isfinite(got) & np.isfinite(want)
    clash = (~finite & ~_same(got, want)).any(axis=1)
    scale = np.abs(np.where(finite, want, 0)).max(axis=1, initial=0)
    biggest = np.maximum(scale, np.abs(np.where(finite, got, 0)).max(axis=1, initial=0))
    unit = np.where(biggest > 0, biggest, 1)[:, None]  # so that no square overflows or vanishes
    g, w = np.where(finite, got, 0) / unit, np.where(finite, want, 0) / unit
    error, power = ((g - w) ** 2).sum(axis=1), (w**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        result = np.where(error == 0, 0.0, error / power)
    return np.where(clash, np.inf, result)


def _pair(got: Array, want: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        raise ValueError(f"shapes {got.shape} and {want.shape} cannot be compared")
    return got.astype(np.float64), want.astype(np.float64)


def _same(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (a == b) | (np.isnan(a) & np.isnan(b))
    return same


def _ordinal(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Each float32's place in the order of all, so that neighbours are one apart and both zeros are 0."""
    bits = x.view(np.uint32).astype(np.int64) if x.ndim else x.reshape(1).view(np.uint32).astype(np.int64).reshape(())
    magnitude = bits & 0x7FFFFFFF
    return np.where(bits >> 31, -magnitude, magnitude)
