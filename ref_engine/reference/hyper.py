"""Weights and sums of hyper-connections (Zhu et al. 2024; Xie et al. 2025). Everything is row by row, in a fixed order.

Shapes: T tokens, N streams, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ref_engine.reference.elementary import exp, sigmoid
from ref_engine.reference.sums import F32, lane_sum
from ref_engine.spec.hyper import HyperSpec


class Writing(NamedTuple):
    """How what a half gives comes back into the streams: post (T, N), mix (T, N from, N to) or None, the identity."""

    post: F32
    mix: F32 | None


def copied(x: F32, n: int) -> F32:
    """One stream to n equal ones: (T, D) -> (T, N, D)."""
    return np.repeat(x[:, None], n, axis=1)


def reading(m: F32, scale: F32, base: F32, h: HyperSpec) -> F32:
    """pre = sigmoid(scale_0 m + base) + eps, from the first N entries: (T, >= N) -> (T, N)."""
    return sigmoid(m[:, : h.n] * scale[0] + base[: h.n]) + np.float32(h.eps)


def writing(m: F32, scale: F32, base: F32, h: HyperSpec) -> Writing:
    """What the entries behind the first N of m (T, 2 N or (2 + N) N) say about writing.

    post = magnitude * sigmoid(scale_1 m + base) + post_eps
    mix  = doubly_stochastic(scale_2 m + base)
    """
    n = h.n
    post = sigmoid(m[:, n : 2 * n] * scale[1] + base[n : 2 * n]) * np.float32(h.magnitude) + np.float32(h.post_eps)
    if not h.rounds:
        return Writing(post, None)
    logits = m[:, 2 * n :] * scale[2] + base[2 * n :]
    return Writing(post, doubly_stochastic(logits.reshape(-1, n, n), h.eps, h.rounds))


def doubly_stochastic(logits: F32, eps: float, rounds: int) -> F32:
    """Non-negative matrices whose rows and columns have sums of nearly 1 (Sinkhorn & Knopp 1967): (..., N, N).

    Each row's softmax, plus eps; then its columns are divided by their sums + eps, and rounds - 1 times its rows and
    its columns.
    """
    small = np.float32(eps)
    e = exp(logits - logits.max(axis=-1, keepdims=True))
    m = e / lane_sum(e)[..., None] + small
    m = m / (lane_sum(np.swapaxes(m, -1, -2))[..., None, :] + small)
    for _ in range(rounds - 1):
        m = m / (lane_sum(m)[..., None] + small)
        m = m / (lane_sum(np.swapaxes(m, -1, -2))[..., None, :] + small)
    return m


def gathered(x: F32, weights: F32) -> F32:
    """sum over i of weights_i x_i, one stream after the other: (T, N, D), (T, N) -> (T, D)."""
    total = x[:, 0] * weights[:, :1]
    for i in range(1, x.shape[1]):
        total = total + x[:, i] * weights[:, i, None]
    return total


def written(x: F32, y: F32, w: Writing) -> F32:
    """x_j = post_j y + sum over i of mix_ij x_i: streams (T, N, D), what a half gave (T, D) -> streams (T, N, D)."""
    new = y[:, None] * w.post[..., None]
    if w.mix is None:
        return x + new
    for i in range(x.shape[1]):
        new = new + x[:, i, None] * w.mix[:, i, :, None]
    return new


def mean(x: F32) -> F32:
    """The streams' mean: (T, N, D) -> (T, D)."""
    total = x[:, 0]
    for i in range(1, x.shape[1]):
        total = total + x[:, i]
    return total * np.float32(1 / x.shape[1])
