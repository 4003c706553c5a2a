"""y = W x, in the two senses of this project.

`activations="f32"`: the weights as float32 numbers. This is the truth: products and sums are in float64 and rounded
once, but for large matrices, where that would take several times as long as BLAS's float32 sums.
`activations="q8"`: what fast kernels compute. x is rounded to 8-bit blocks, the dot of two blocks is an exact integer,
and each output adds its blocks in order, in float32, multiply and add rounded separately:

    acc = acc + (dw * dx) * sum(qw * qx)          every block type
    acc = acc + m * s                             then, for types with a minimum per block (Q4_1, Q5_1)
    acc = acc - (dmin * dx) * sum(min_j * sum_j)  or with minima per sub-block (Q2_K, Q4_K, Q5_K)

with s, sum_j the sums of the activation block. F32, F16 and BF16 weights have no blocks: x is rounded to the weight's
type and the products are added in sixteen lanes (see `sums`).
Sources: `ggml_vec_dot_*_q8_*`; the order of additions is ours (docs/numerics.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np

from ref_engine.quant.activations import ROUNDINGS, Rounded
from ref_engine.quant.types import PLAIN_TYPES
from ref_engine.reference.sums import F32, lane_matmul
from ref_engine.weights import Weight

_EXACT = 1 << 19  # numbers in a matrix up to which f32 mode sums in float64
Activations = Literal["f32", "q8"]
Map = tuple[Weight, F32 | None]  # a weight and its bias


def linear(x: F32, weight: Weight, bias: F32 | None = None, *, activations: Activations) -> F32:
    """x: (T, columns) float32, weight: (rows, columns), bias: (rows,) float32 -> (T, rows) float32.

    Raises ValueError when the widths differ.
    """
    if x.shape[-1] != weight.shape[-1]:
        raise ValueError(f"{weight.name}: input of width {x.shape[-1]}, weight of width {weight.shape[-1]}")
    if activations == "f32":
        w = weight.f32()
        y = exact_dot(x, w) if w.size <= _EXACT else x @ w.T
    elif weight.is_plain:
        y = plain_dot(x, weight)
    else:
        y = block_dot(ROUNDINGS[weight.activation](x), weight)
    return y if bias is None else y + bias


def linears(x: F32, maps: Sequence[Map], *, activations: Activations) -> list[F32]:
    """Several maps (weight, bias) of one input, as `linear` each: a backend may round x once for all of them."""
    return [linear(x, weight, bias, activations=activations) for weight, bias in maps]


def by_head(x: F32, stack: Weight, linear: Callable[[F32, Weight], F32]) -> F32:
    """A matrix for each head: x (T, H, n), stack (H, m, n) -> (T, H, m)."""
    return np.stack([linear(x[:, h], stack.expert(h)) for h in range(x.shape[1])], axis=1)


def linear_blas(x: F32, weight: Weight, bias: F32 | None = None) -> F32:
    """As `linear` in f32 mode, but always in float32 sums of BLAS's order."""
    y: F32 = x @ weight.f32().T
    return y if bias is None else y + bias


def linears_blas(x: F32, maps: Sequence[Map]) -> list[F32]:
    return [linear_blas(x, weight, bias) for weight, bias in maps]


linear_f32 = partial(linear, activations="f32")
linear_q8 = partial(linear, activations="q8")
linears_f32 = partial(linears, activations="f32")
linears_q8 = partial(linears, activations="q8")


def exact_dot(x: F32, w: F32) -> F32:
    """x (T, n) times the rows of w (rows, n), in float64, rounded once to float32: (T, rows)."""
    y: F32 = (x.astype(np.float64) @ w.astype(np.float64).T).astype(np.float32)
    return y


def block_dot(x: Rounded, weight: Weight) -> F32:
    """Rounded activations times a weight of a block type: (T, rows) float32."""
    w = weight.integers()
    acc = np.zeros((x.q.shape[0], weight.shape[0]), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite scales give infinite or NaN outputs
        for b in range(x.q.shape[1]):
            dx = x.d[:, b, None]
            # exact: every partial sum is an integer that w.q.dtype can hold, whatever order BLAS takes
            isum = (x.q[:, b].astype(w.q.dtype) @ w.q[b].T).astype(np.float32)
            acc = acc + (w.d[b] * dx) * isum
            if w.m is not None and x.s is not None:
                acc = acc + w.m[b] * x.s[:, b, None]
            if w.mins is not None and w.dmin is not None and x.sums is not None:
                groups = w.mins.shape[-1]  # sums of 16, minima for 16 (Q2_K) or 32
                sums = x.sums[:, b].astype(w.mins.dtype).reshape(-1, groups, 16 // groups).sum(axis=-1)
                imin = (sums @ w.mins[b].T).astype(np.float32)
                acc = acc - (w.dmin[b] * dx) * imin
    return acc


def plain_dot(x: F32, weight: Weight) -> F32:
    """Float activations, rounded to the weight's type, times an F32, F16 or BF16 weight: (T, rows) float32."""
    kind = PLAIN_TYPES[weight.type]
    return lane_matmul(kind.to_f32(kind.from_f32(x)), weight.f32())
