"""Which scale (and minimum) suits a group of weights best: the searches that ggml's quantisers share.

Byte-identical files ask for ggml's arithmetic: every value is float32, every sum runs over the group in order, and
each step is a C expression's, read from left to right. Groups stand side by side: arrays are (n, N) for N groups of n
weights, so one NumPy operation takes position i of all groups at once and a loop over i is the loop of the C function.
Divisions by zero and values out of range happen, as they do there; the caller switches NumPy's warnings off.
Sources: `nearest_int`, `make_qx_quants`, `make_q3_quants`, `make_qkx2_quants`, `make_qkx3_quants`, `make_qp_quants`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32

I32 = NDArray[np.int32]
f = np.float32
ZERO_BELOW = f(1e-15)  # a group whose largest value is smaller counts as zero


def in_order(terms: F32) -> F32:
    """(n, N) -> (N,): the sum over the first axis, one term after the other."""
    acc = np.zeros(terms.shape[1:], np.float32)
    for term in terms:
        acc += term
    return acc


def nearest_int(x: F32) -> I32:
    """The nearest integer, ties to even, by adding 1.5 * 2^23; beyond 2^22 and for NaN whatever bits that leaves."""
    bits: I32 = (x + f(12582912)).view(np.int32)
    return (bits & 0x007FFFFF) - 0x00400000


def nearest_between(x: F32, low: int, high: int) -> F32:
    """`nearest_int`, clipped, as float32."""
    return np.clip(nearest_int(x), low, high).astype(np.float32)


def largest(x: F32) -> F32:
    """(n, N) -> (N,): of each group the value of largest magnitude, the first of equals; NaN is passed over."""
    x = np.where(np.isnan(x), f(0), x)
    at = np.abs(x).argmax(axis=0)
    found: F32 = np.take_along_axis(x, at[None], axis=0)[0]
    return found


def least(x: F32) -> F32:
    """(n, N) -> (N,): the least value of each group, of zeros the first whatever its sign."""
    found: F32 = np.take_along_axis(x, x.argmin(axis=0)[None], axis=0)[0]
    return found


def half(x: F32) -> F32:
    """Rounded to float16 and back, as a stored scale is read again."""
    return x.astype(np.float16).astype(np.float32)


def group_weights(x: F32, sigma2: F32, importance: F32) -> F32:
    """importance * sqrt(sigma2 + x^2): what a wrong weight costs when an importance matrix is given."""
    return importance * np.sqrt(sigma2 + x * x)


def fit_signed(x: F32, w: F32, nmax: int) -> tuple[F32, F32]:
    """Scale and integers -nmax .. nmax - 1 with little sum(w * (x - scale * q)^2): 19 tries around -nmax / largest.

    (n, N), (n, N) -> (N,), (n, N). A group that counts as zero has scale 0 and integers -nmax, as stored 0.
    """
    top = largest(x)
    wx = w * x

    def sums(inverse: F32) -> tuple[F32, F32]:
        q = nearest_between(inverse * x, -nmax, nmax - 1)
        return in_order(wx * q), in_order(w * q * q)

    chosen = f(-nmax) / top
    xq, qq = sums(chosen)
    scale = np.where(qq != 0, xq / qq, f(0))
    best = scale * xq
    for step in (*range(-9, 0), *range(1, 10)):
        inverse = -(f(nmax) + f(0.1) * f(step)) / top
        xq, qq = sums(inverse)
        better = (qq > 0) & (xq * xq > best * qq)
        scale = np.where(better, xq / qq, scale)
        best = np.where(better, scale * xq, best)
        chosen = np.where(better, inverse, chosen)
    zero = np.abs(top) < ZERO_BELOW
    q = nearest_between(chosen * x, -nmax, nmax - 1)
    return np.where(zero, f(0), scale), np.where(zero, f(-nmax), q)


def _descend(x: F32, w: F32, q: F32, sums: tuple[F32, F32], limits: tuple[int, int], positive: bool) -> tuple[F32, F32]:
    """Change one integer at a time, up to five rounds, wherever (sum wxq)^2 / sum wqq grows. q is changed in place.

    positive: the integers are kept in unsigned bytes.
    """
    xq, qq = sums
    for _ in range(5):
        before = q.copy()
        for i in range(len(x)):
            wx = w[i] * x[i]
            rest_xq, rest_qq = xq - wx * q[i], qq - w[i] * q[i] * q[i]
            new = nearest_between(x[i] * rest_qq / rest_xq, *limits)
            new_xq, new_qq = rest_xq + wx * new, rest_qq + w[i] * new * new
            allowed = (rest_xq > 0) & (new != q[i]) & ((rest_qq if positive else new_qq) > 0)
            better = allowed & (new_xq * new_xq * qq > xq * xq * new_qq)
            q[i] = np.where(better, np.mod(new, f(256)) if positive else new, q[i])
            xq, qq = np.where(better, new_xq, xq), np.where(better, new_qq, qq)
        if (q == before).all():
            break
    return xq, qq


def fit_three_bits(x: F32) -> tuple[F32, F32]:
    """As `fit_signed` for integers -4 .. 3 and w = x^2, but improved one integer at a time (Q3_K)."""
    w, top = x * x, largest(x)
    q = nearest_between(f(-4) / top * x, -4, 3)
    xq, qq = _descend(x, w, q, (in_order(w * x * q), in_order(w * q * q)), (-4, 3), positive=False)
    zero = np.abs(top) < ZERO_BELOW
    scale = np.where(qq > 0, xq / qq, f(0))
    return np.where(zero, f(0), scale), np.where(zero, f(-4), q)


def fit_with_minimum(
    x: F32, w: F32, nmax: int, grid: tuple[float, float, int], absolute: bool = False
) -> tuple[F32, F32, F32]:
    """Scale, minimum and integers 0 .. nmax with little error of scale * q - minimum.

    grid: (first, step, n) of the tries nmax + first, nmax + first + step, ... for the number of steps between the
    least and the largest value; each try solves for scale and minimum by least squares. absolute: the error is
    sum(w * |difference|) instead of the square. (n, N), (n, N) -> (N,), (N,) (not negative), (n, N).
    """
    low, high = least(x), x.max(axis=0)
    low = np.where(low > 0, f(0), low)
    sum_w, sum_x = in_order(w), in_order(w * x)
    flat = high <= low

    def error(q: F32, scale: F32, low: F32) -> F32:
        difference = scale * q + low - x
        return in_order(w * (np.abs(difference) if absolute else difference * difference))

    inverse: F32 = f(nmax) / (high - low)
    scale: F32 = f(1) / inverse
    q = nearest_between(inverse * (x - low), 0, nmax)
    least_error, start = error(q, scale, low), low
    first, step, n = grid
    for i in range(n + 1):
        inverse = (f(first) + f(step) * f(i) + f(nmax)) / (high - low)
        tried = nearest_between(inverse * (x - low), 0, nmax)
        wq = w * tried
        sum_q, sum_qq, sum_xq = in_order(wq), in_order(wq * tried), in_order(wq * x)
        det = sum_w * sum_qq - sum_q * sum_q
        slope: F32 = np.divide(sum_w * sum_xq - sum_x * sum_q, det)
        offset: F32 = np.divide(sum_qq * sum_x - sum_q * sum_xq, det)
        new_scale = np.where(offset > 0, sum_xq / sum_qq, slope)
        new_low = np.where(offset > 0, f(0), offset)
        new_error = error(tried, new_scale, new_low)
        better = (det > 0) & (new_error < least_error)
        q = np.where(better, tried, q)
        least_error = np.where(better, new_error, least_error)
        scale, low = np.where(better, new_scale, scale), np.where(better, new_low, low)
    return np.where(flat, f(0), scale), -np.where(flat, start, low), np.where(flat, f(0), q)


def _byte(q: I32) -> F32:
    """An int kept in an unsigned byte: modulo 256."""
    return (q & 255).astype(np.float32)


def fit_positive(x: F32, w: F32, nmax: int) -> tuple[F32, NDArray[Any]]:
    """Scale and integers 0 .. nmax for values that are not negative: the scales and minima of a block.

    (n, N), (n, N) -> (N,), (n, N) uint8.
    """
    high = np.zeros(x.shape[1:], np.float32)
    for value in x:
        high = np.where(high > value, high, value)
    chosen = f(nmax) / high
    difference = x - f(1) / chosen * _byte(nearest_int(chosen * x))
    least_error = in_order(w * difference * difference)
    for step in (-4, -3, -2, -1, 1, 2, 3, 4):
        inverse = (f(0.1) * f(step) + f(nmax)) / high
        q = np.minimum(nearest_int(inverse * x), nmax).astype(np.float32)
        difference = x - f(1) / inverse * q
        error = in_order(w * difference * difference)
        better = error < least_error
        least_error, chosen = np.where(better, error, least_error), np.where(better, inverse, chosen)
    exact = np.minimum(nearest_int(chosen * x), nmax)
    q = exact.astype(np.float32)
    sums = in_order(w * x * q), in_order(w * q * q)
    q = _byte(exact)
    xq, qq = _descend(x, w, q, sums, (-(1 << 23), nmax), positive=True)
    zero = high < ZERO_BELOW
    scale = np.where(qq > 0, xq / qq, f(0))
    return np.where(zero, f(0), scale), np.where(zero, f(0), q).astype(np.uint8)
