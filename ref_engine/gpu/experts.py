"""A mixture's experts on the device: only the bytes of those that were chosen are read, and the host asks for nothing.

A pair is a choice of a token: pair p is choice p % k of token p // k. Few tokens, as in decoding: each pair is a slot,
and one launch multiplies all of them by the matrices whose numbers are in the memory of the device. Many tokens: pairs
are sorted by expert there, and each expert's matrix is read once for several of its pairs. With a tap, the steps are
those of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ref_engine.gpu import module
from ref_engine.gpu.groups import Groups, grouped
from ref_engine.gpu.module import NOTHING
from ref_engine.gpu.packed import has_kernel, packed
from ref_engine.gpu.products import MOST, Products
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

    ids: without a tap they have to be those of `route`, which checks them. Of one that is no expert's, a token among
    more than MOST gets NaN; fewer tokens would read behind the weights. With a tap it is a ModelError.
    """
    stacks = [s for s in (experts.up, experts.gate, experts.down) if s is not None]
    kernels = all(has_kernel(s.weight) for s in stacks)
    if kernels:
        for stack in stacks:  # whole, before any expert of it is uploaded by itself
            packed(stack.weight)
    if tap is not None or not kernels or not ids.size:
        return moe.moe_ffn(x, ids, weights, experts, tap=tap, linear=products.linear, glu=glu)
    ids, weights = np.ascontiguousarray(ids, like=x), np.ascontiguousarray(weights, like=x)
    k, n_expert = ids.shape[1], experts.up.weight.shape[0]
    flat = ids.reshape(-1)
    maps = Maps(products, flat, grouped(flat, n_expert) if len(x) > MOST else None)
    if experts.weigh_input:
        x = (x[:, None] * weights[..., None]).reshape(-1, x.shape[1])
    y = maps(hidden(maps, x, experts, glu), experts.down)
    given = None if experts.weigh_input else weights
    total: F32 = weighted_sum(y.reshape(-1, k, y.shape[1]), ids, given, n_expert)
    return total


def hidden(maps: Maps, x: F32, experts: Experts, glu: Glu) -> F32:
    """(T, D) or (T * k, D) -> (T * k, F): up, gate and activation."""
    up = maps(x, experts.up)
    if experts.fused:
        gate, up = (np.ascontiguousarray(half, like=half) for half in np.split(up, 2, axis=-1))
    elif experts.gate is None:
        return ffn.activation(up, experts.activation)
    else:
        gate = maps(x, experts.gate)
    return glu(gate, up, experts.activation, experts.constants)


@dataclass
class Maps:
    """ids: of each pair (T * k,) int32 on the device. groups: the same sorted; None: each pair is a slot."""

    products: Products
    ids: Any
    groups: Groups | None
    _last: tuple[Any, str, Any] = (None, "", None)  # an input, and how it was rounded to what: two maps have the same

    def __call__(self, x: F32, stack: Stack) -> F32:
        """x (T, columns) or (T * k, columns) -> (T * k, rows)."""
        w, n = packed(stack.weight), self.ids.size
        bias = stack.bias if stack.scale is None else None
        kind, share = self.products.kind(w.type), n // len(x)
        if self._last[0] is not x or self._last[1] != kind:
            self._last = x, kind, self.products.input(x, w.type)
        given = self._last[2]
        if self.groups is None:
            y: Any = self.products.product(given, w, bias, self.ids, n, share)
        else:
            y = self.products.grouped(given, w, bias, self.groups, share)
        return y if stack.scale is None else scaled(y, stack, self.ids)


def scaled(y: F32, stack: Stack, ids: Any) -> F32:
    """y (n, rows) of experts ids (n,): times their factors, plus their biases."""
    if stack.scale is not None:
        y = y * stack.scale[ids][:, None]
    return y if stack.bias is None else y + stack.bias[ids]


def weighted_sum(y: Any, ids: Any, weights: Any, n_expert: int) -> Any:
    """y (T, k, D), ids (T, k), weights (T, k) or None -> (T, D): products rounded, added in the order of k."""
    tokens, k, width = y.shape
    out = np.empty((tokens, width), np.float32, like=y)
    numbers = (np.int64(out.size), *(np.int32(i) for i in (k, width, n_expert)))
    arguments = (y, ids, NOTHING if weights is None else weights, out, *numbers)
    module.get("experts", "weighted_sum")((-(-out.size // _THREADS),), (_THREADS,), arguments)
    return out
