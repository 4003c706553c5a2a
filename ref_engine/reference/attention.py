"""Attention of new tokens to all keys so far: softmax(q k^T * scale + mask) v (Vaswani et al. 2017).

Query heads share key/value heads in groups of H / K (Ainslie et al. 2023). Token t at position p sees the keys at
positions p - window + 1 .. p. Keys are in order of their positions, key s at position s, so that sums over keys have
one order however a prompt was split; a masked key adds an exact zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.files.types import GGMLType
from ref_engine.quant.activations import Q8_0_LAYOUT, ROUNDINGS
from ref_engine.quant.rows import numbers
from ref_engine.reference.elementary import exp, tanh
from ref_engine.reference.linear import block_dot
from ref_engine.reference.sums import F32, lane_matmul, lane_sum
from ref_engine.spec.attention import Temperature
from ref_engine.weights import Weight

Tap = Callable[[str, F32], F32]


def causal_mask(positions: NDArray[np.int64], n_keys: int, window: int | None) -> NDArray[np.bool_]:
    """Which keys each token sees: positions (T,) -> (T, S) bool."""
    s = np.arange(n_keys)
    seen: NDArray[np.bool_] = s <= positions[:, None]
    return seen if window is None else seen & (s > positions[:, None] - window)


def full_mask(positions: NDArray[np.int64], n_keys: int, window: int | None, behind: bool = False) -> NDArray[np.bool_]:
    """Attention to both sides, within half a window of each (ggml's symmetric window): (T, S) bool.

    behind: the window is one of the past, and all that comes after is seen (ggml's standard window).
    """
    back = positions[:, None] - np.arange(n_keys)
    if window is None:
        return np.ones(back.shape, np.bool_)
    seen: NDArray[np.bool_] = back < window if behind else np.abs(back) <= window // 2
    return seen


def chunked_mask(positions: NDArray[np.int64], n_keys: int, chunk: int) -> NDArray[np.bool_]:
    """Keys up to a token's own position and within its own chunk of positions (Llama 4): (T, S) bool."""
    s = np.arange(n_keys)
    seen: NDArray[np.bool_] = (s <= positions[:, None]) & (s >= (positions // chunk * chunk)[:, None])
    return seen


def alibi_slopes(n_head: int, max_bias: float) -> F32:
    """How much each head minds distance (Press et al. 2022; ggml_soft_max_ext): (H,) float32.

    The first n heads, n the largest power of two up to H, take powers of 2**(-max_bias / n); the others the odd powers
    of its square root.
    """
    n = 1 << (n_head.bit_length() - 1)
    first = np.float32(2.0 ** (-max_bias / n))
    second = np.float32(2.0 ** (-max_bias / 2 / n))
    slopes = [first ** np.float32(h + 1) if h < n else second ** np.float32(2 * (h - n) + 1) for h in range(n_head)]
    return np.array(slopes, np.float32)


def temperatures(positions: NDArray[np.int64], t: Temperature) -> F32:
    """What queries at positions (T,) are multiplied by: ln(floor((position + offset) / step) + 1) * scale + 1.

    Nakanishi 2025, "Scalable-Softmax", as in Llama 4. Returns (T,) float32, rounded from float64.
    """
    steps = np.floor((positions + t.offset) / t.step)
    by_step = {n: math.log(n + 1) * t.scale + 1 for n in np.unique(steps).tolist()}
    return np.array([by_step[n] for n in steps.tolist()], np.float32)


def scores_blas(q: F32, k: F32) -> F32:
    """q (T, H, Hd), k (S, K, Hd) -> (H, T, S), one matrix product for each group of heads, in float64, rounded once."""
    grouped = q.transpose(1, 0, 2).reshape(k.shape[1], -1, q.shape[2])  # (K, H / K * T, Hd)
    return _product(grouped, k.transpose(1, 2, 0)).reshape(q.shape[1], q.shape[0], -1)


def _product(a: F32, b: F32) -> F32:
    """(K, m, n), (K, n, p) -> (K, m, p), one group after the other, which keeps the float64 numbers few."""
    return np.stack(
        [(x.astype(np.float64) @ y.astype(np.float64)).astype(np.float32) for x, y in zip(a, b, strict=True)]
    )


def scores_ordered(q: F32, k: F32) -> F32:
    """The same with each dot product added in sixteen lanes."""
    groups = q.shape[1] // k.shape[1]
    return np.stack([lane_matmul(q[:, h], k[:, h // groups]) for h in range(q.shape[1])])


def soft_max(x: F32, seen: NDArray[np.bool_], scale: float, bias: F32 | None = None, sinks: F32 | None = None) -> F32:
    """softmax(x * scale + bias) over the seen entries of the last axis, zero elsewhere (ggml_soft_max_ext).

    x: (H, T, S) float32, seen: (T, S) or (H, T, S) bool with at least one True in each row, bias: like x or None.
    The largest value is taken off first. sinks: (H,), one more score for each head, which takes weight and gives
    nothing.
    """
    x = x * np.float32(scale)
    x = np.where(seen, x if bias is None else x + bias, np.float32(-np.inf))
    largest = x.max(axis=-1, keepdims=True)
    if sinks is None:
        p = exp(x - largest)
        return p * (np.float32(1) / lane_sum(p))[..., None]
    largest = np.maximum(largest, sinks[:, None, None])
    p = exp(x - largest)
    total = lane_sum(p) + exp(sinks[:, None] - largest[..., 0])
    return p * (np.float32(1) / total)[..., None]


def soft_cap(x: F32, cap: float) -> F32:
    """tanh(x / cap) * cap (Gemma 2)."""
    return tanh(x * np.float32(1 / cap)) * np.float32(cap)


def weighted_blas(p: F32, v: F32) -> F32:
    """p (H, T, S), v (S, K, Hd) -> (H, T, Hd), as one matrix product for each group of heads."""
    grouped = p.reshape(v.shape[1], -1, p.shape[2])  # (K, H / K * T, S)
    return _product(grouped, v.transpose(1, 0, 2)).reshape(*p.shape[:2], v.shape[2])


def weighted_ordered(p: F32, v: F32, seen: NDArray[np.bool_]) -> F32:
    """The same, adding one key after the other: acc = acc + p[s] * v[s], and a key that is masked not at all.

    (Its zero weight would do for a finite value. An infinite one, of a later token, must not reach earlier ones.)
    """
    groups = p.shape[0] // v.shape[1]
    out = np.zeros((p.shape[0], p.shape[1], v.shape[2]), np.float32)
    by_head = np.broadcast_to(seen, p.shape)
    with np.errstate(invalid="ignore"):
        for h, acc in enumerate(out):
            by_query = by_head[h].T[:, :, None]  # (S, T, 1)
            by_key = np.ascontiguousarray(p[h].T)[:, :, None]  # (S, T, 1)
            values = np.ascontiguousarray(v[:, h // groups])  # (S, Hd)
            for s in range(v.shape[0]):
                np.add(acc, by_key[s] * values[s], out=acc, where=by_query[s])
    return out


def as_half(x: F32) -> F32:
    """float32 rounded to float16 and back, as ggml's dot product does with what it multiplies by float16."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def as_f32(x: NDArray[np.floating[Any]]) -> F32:
    return x.astype(np.float32, copy=False)


def scores_of(q: F32, k: NDArray[Any]) -> F32:
    """The ordered scores of keys as a cache holds them: (T, H, Hd), (S, K, Hd) -> (H, T, S).

    Blocks of Q8_0 are a matrix like any other: the query is rounded to such blocks too (`linear.block_dot`).
    """
    if k.dtype != Q8_0_LAYOUT:
        return scores_ordered(as_half(q) if k.dtype == np.float16 else q, as_f32(k))
    groups, rounded = q.shape[1] // k.shape[1], ROUNDINGS["q8_0"]
    heads = [np.ascontiguousarray(k[:, h]).view(np.uint8) for h in range(k.shape[1])]
    keys = [Weight("keys", GGMLType.Q8_0, (k.shape[0], q.shape[2]), head.reshape(-1)) for head in heads]
    return np.stack([block_dot(rounded(q[:, h]), keys[h // groups]) for h in range(q.shape[1])])


def weighted_of(p: F32, v: NDArray[Any], seen: NDArray[np.bool_]) -> F32:
    """The ordered sum of values as a cache holds them: (H, T, S), (S, K, Vd) -> (H, T, Vd)."""
    values = as_f32(numbers(v))
    if v.dtype == np.float32:
        return weighted_ordered(p, values, seen)
    return weighted_ordered(as_half(p), as_half(values), seen)


def attend(
    q: F32,
    k: NDArray[Any],
    v: NDArray[Any],
    positions: NDArray[np.int64],
    *,
    scale: float,
    window: int | None = None,
    cap: float | None = None,
    sinks: F32 | None = None,
    slopes: F32 | None = None,
    seen: NDArray[np.bool_] | None = None,
    ordered: bool,
    tap: Tap | None = None,
) -> F32:
    """q (T, H, Hd), k (S, K, Hd), v (S, K, Vd), positions (T,) of the queries -> (T, H * Vd) float32.

    Keys and values may be float16 or blocks of Q8_0, as a cache holds them (quant/rows.py). Where `ordered` what they
    are multiplied by (queries, weights of the softmax) is rounded to float16; beside blocks the queries are rounded to
    blocks, and the values read as float16 too.
    sinks: (H,) see `soft_max`. slopes: (H,) see `alibi_slopes`. seen: (T, S) or (H, T, S), in place of the mask that
    the window gives.
    ordered: sums in the fixed order of q8 mode, instead of by matrix products. `tap(name, value)` sees, and may
    replace, the steps under llama.cpp's names: kq and kq_soft_max (H, T, S), kqv (H, T, Hd).
    """
    tap = tap or (lambda name, value: value)
    seen = np.asarray(causal_mask(positions, k.shape[0], window) if seen is None else seen, like=q)
    kq = tap("kq", scores_of(q, k) if ordered else scores_blas(q, as_f32(numbers(k))))
    if cap is not None:
        kq = soft_cap(kq, cap)
    bias = None
    if slopes is not None:
        distance = np.abs(positions[:, None] - np.arange(k.shape[0])).astype(np.float32)
        bias = np.asarray(slopes[:, None, None] * -distance, like=q)
    p = tap("kq_soft_max", soft_max(kq, seen, scale, bias, sinks))
    kqv = tap("kqv", weighted_of(p, v, seen) if ordered else weighted_blas(p, as_f32(numbers(v))))
    return np.ascontiguousarray(kqv.transpose(1, 0, 2), like=q).reshape(q.shape[0], -1)


def default_scale(head_width: int) -> float:
    """1 / sqrt(Hd)"""
    return 1 / math.sqrt(head_width)


attend_blas = partial(attend, ordered=False)
attend_ordered = partial(attend, ordered=True)
