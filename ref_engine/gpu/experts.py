"""A mixture's experts on the device: only the bytes of those that were chosen are read.

Few tokens, as in decoding: each choice of each token is a slot, one launch multiplies all slots by the matrices whose
numbers are in the memory of the device, and nothing is asked by the host. Many tokens: the numbers are copied to the
host once a layer, tokens are sorted by expert, and each expert multiplies all of its tokens at once. With a tap, the
steps are those of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ref_engine.gpu import module
from ref_engine.gpu.module import NOTHING
from ref_engine.gpu.packed import has_kernel, packed
from ref_engine.gpu.products import MOST, Products
from ref_engine.place import to_host
from ref_engine.reference import ffn, moe
from ref_engine.reference.moe import Experts, Glu, Ids, Stack, Tap
from ref_engine.reference.sums import F32

_THREADS = 256


def moe_ffn(
    products: Products,
    x: F32,
    ids: Ids,
    weights: F32,
    experts: Experts,
    *,
    tap: Tap | None = None,
    glu: Glu = ffn.glu,
) -> F32:
    """As reference moe_ffn: x (T, D), ids (T, k) and weights (T, k), all on the device -> (T, D).

    ids: without a tap they are taken as they come, and have to be those of `route`, which checks them. Raises
    ModelError for one that is no expert's where they are asked for: with a tap, and for more than MOST tokens.
    """
    stacks = [s for s in (experts.up, experts.gate, experts.down) if s is not None]
    kernels = all(has_kernel(s.weight) for s in stacks)
    if kernels:
        for stack in stacks:  # whole, before any expert of it is uploaded by itself
            packed(stack.weight)
    if tap is not None or not kernels or not ids.size:
        return moe.moe_ffn(x, ids, weights, experts, tap=tap, linear=products.linear, glu=glu)
    ids, weights = np.ascontiguousarray(ids, like=x), np.ascontiguousarray(weights, like=x)
    k = ids.shape[1]
    maps: Slots | Sorted = Slots(products, ids) if len(x) <= MOST else Sorted.of(products, ids, experts)
    if experts.weigh_input:
        x = (x[:, None] * weights[..., None]).reshape(-1, x.shape[1])
    y = maps.in_order(maps(hidden(maps, x, experts, glu), experts.down))
    total: F32 = weighted_sum(y.reshape(-1, k, y.shape[1]), None if experts.weigh_input else weights)
    return total


def hidden(maps: Slots | Sorted, x: F32, experts: Experts, glu: Glu) -> F32:
    """(T, D) or (T * k, D) -> (T * k, F): up, gate and activation."""
    x = maps.entered(x)
    up = maps(x, experts.up)
    if experts.fused:
        gate, up = (np.ascontiguousarray(half, like=half) for half in np.split(up, 2, axis=-1))
    elif experts.gate is None:
        return ffn.activation(up, experts.activation)
    else:
        gate = maps(x, experts.gate)
    return glu(gate, up, experts.activation, experts.constants)


@dataclass
class Slots:
    """Slot s is choice s % k of token s // k. ids: (T, k) int32 on the device."""

    products: Products
    ids: Any

    def entered(self, x: F32) -> F32:
        return x

    def __call__(self, x: F32, stack: Stack) -> F32:
        """x (T, columns) or (T * k, columns) -> (T * k, rows)."""
        w, flat = packed(stack.weight), self.ids.reshape(-1)
        bias = stack.bias if stack.scale is None else None
        given = self.products.input(x, w.type)
        y: Any = self.products.product(given, w, bias, flat, flat.size, flat.size // len(x))
        return scaled(y, stack, flat) if stack.scale is not None else y

    def in_order(self, y: F32) -> F32:
        return y


@dataclass
class Sorted:
    """Rows are sorted by expert: row i is choice order[i] % k of token order[i] // k.

    order: (T * k,) and ids: (T * k,), sorted, on the device. runs: of each expert that was chosen, its rows.
    """

    products: Products
    k: int
    order: Any
    ids: Any
    runs: list[tuple[int, int, int]]

    @classmethod
    def of(cls, products: Products, ids: Ids, experts: Experts) -> Sorted:
        """Asks the device for the numbers, the only time in a layer."""
        up = experts.up.weight
        flat = moe.checked(to_host(ids), up.shape[0], up.name).reshape(-1)
        order = np.argsort(flat, kind="stable")
        ends = np.cumsum(np.bincount(flat, minlength=up.shape[0])).tolist()
        runs = [(e, first, end) for e, (first, end) in enumerate(zip([0, *ends], ends, strict=False)) if end > first]
        there = np.asarray(order, like=ids)
        return cls(products, ids.shape[1], there, ids.reshape(-1)[there], runs)

    def entered(self, x: F32) -> F32:
        rows: F32 = x[self.order if len(x) == len(self.order) else self.order // self.k]
        return rows

    def __call__(self, x: F32, stack: Stack) -> F32:
        """x (T * k, columns) -> (T * k, rows)."""
        y = np.empty((len(x), stack.weight.shape[1]), np.float32, like=x)
        for e, first, end in self.runs:
            y[first:end] = self.products.linear(x[first:end], stack.weight.expert(e))
        return scaled(y, stack, self.ids)

    def in_order(self, y: F32) -> F32:
        out = np.empty(y.shape, np.float32, like=y)
        out[self.order] = y
        return out


def scaled(y: F32, stack: Stack, ids: Any) -> F32:
    """y (n, rows) of experts ids (n,): times their factors, plus their biases."""
    if stack.scale is not None:
        y = y * stack.scale[ids][:, None]
    return y if stack.bias is None else y + stack.bias[ids]


def weighted_sum(y: Any, weights: Any) -> Any:
    """y (T, k, D), weights (T, k) or None -> (T, D): products rounded, added in the order of k."""
    tokens, k, width = y.shape
    out = np.empty((tokens, width), np.float32, like=y)
    blocks = -(-out.size // _THREADS)
    arguments = (y, NOTHING if weights is None else weights, out, np.int64(out.size), np.int32(k), np.int32(width))
    module.get("experts", "weighted_sum")((blocks,), (_THREADS,), arguments)
    return out
