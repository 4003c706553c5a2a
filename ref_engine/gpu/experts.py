"""A mixture's experts on the device: products of each token with the experts that it chose, and with no others.

Which tokens an expert has is found out by a kernel, for those of the products: the host neither knows it nor waits for
it. Only the bytes of chosen experts are read, once for each group of up to eight tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ref_engine.gpu import module
from ref_engine.gpu.module import NOTHING
from ref_engine.gpu.packed import has_kernel, packed
from ref_engine.gpu.products import AT_ONCE, MOST, Groups, Products
from ref_engine.reference import moe
from ref_engine.reference.ffn import activation
from ref_engine.reference.moe import Experts, Ids, Stack, Tap
from ref_engine.reference.sums import F32

_THREADS = 256
_MOST_EXPERTS = 4096  # whose counts fit the memory that a block of threads shares


def grouped(ids: Ids, n_experts: int, each: int) -> Groups:
    """ids (T, k) int32, each below n_experts -> groups of at most `each` slots of one expert."""
    n = ids.size
    n_groups = n if each == 1 else min(n, n_experts + n // each)
    groups, slots = np.empty((n_groups, 3), np.int32, like=ids), np.empty(n, np.int32, like=ids)
    sizes = [np.int32(x) for x in (n, n_experts, n_groups, each)]
    kernel = module.get("experts", "group_slots")
    arguments = (np.ascontiguousarray(ids, like=ids), groups, slots, *sizes)
    kernel((1,), (_THREADS,), arguments, shared_mem=8 * (n_experts + 1))
    return Groups(groups, slots, n_groups, n, each)


def added(y: Any, weights: Any, tokens: int) -> F32:
    """y (slots, D), weights (T, k) or None -> (T, D): a token's weighted terms, added in order of its choices."""
    out: F32 = np.empty((tokens, y.shape[1]), np.float32, like=y)
    w = NOTHING if weights is None else np.ascontiguousarray(weights, np.float32, like=weights)
    kernel = module.get("experts", "add_choices")
    grid = (tokens, -(-y.shape[1] // _THREADS))
    kernel(grid, (_THREADS,), (y, w, out, np.int32(y.shape[1]), np.int32(y.shape[0] // tokens)))
    return out


@dataclass(frozen=True)
class DeviceExperts:
    """`moe_ffn` of a backend. What no kernel knows, and what somebody looks into, is the reference's composition."""

    products: Products
    glu: Callable[..., F32]

    def __call__(self, x: F32, ids: Ids, weights: F32, experts: Experts, *, tap: Tap | None = None) -> F32:
        """x (T, D), ids (T, k) as `route` gives them, weights (T, k) -> (T, D)."""
        stacks = [s for s in (experts.up, experts.gate, experts.down) if s is not None]
        n_experts = experts.up.weight.shape[0]
        if tap is not None or n_experts > _MOST_EXPERTS or not all(has_kernel(s.weight) for s in stacks) or not x.size:
            composed = partial(moe.moe_ffn, linear=self.products.linear, glu=self.glu)
            return composed(x, ids, weights, experts, tap=tap)
        groups = grouped(ids, n_experts, AT_ONCE[min(x.shape[0], MOST)])
        if experts.weigh_input:
            x = (x[:, None] * weights[..., None]).reshape(ids.size, -1)
        y = self.mapped(self.hidden(x, ids, experts, groups), ids, experts.down, groups)
        return added(y, None if experts.weigh_input else weights, ids.shape[0])

    def hidden(self, x: F32, ids: Ids, experts: Experts, groups: Groups) -> F32:
        """x (T, D), or (slots, D) -> (slots, F)"""
        up = self.mapped(x, ids, experts.up, groups)
        if experts.fused:
            gate, up = (np.ascontiguousarray(half, like=half) for half in np.split(up, 2, axis=-1))
        elif experts.gate is None:
            return activation(up, experts.activation)
        else:
            gate = self.mapped(x, ids, experts.gate, groups)
        return self.glu(gate, up, experts.activation, experts.constants)

    def mapped(self, x: F32, ids: Ids, stack: Stack, groups: Groups) -> F32:
        """x (T, columns), or (slots, columns) -> (slots, rows): W_e x * scale_e + bias_e."""
        w = packed(stack.weight)
        y: F32 = self.products.product(
            self.products.input(x, w.type), w, stack.bias if stack.scale is None else None, groups
        )
        if stack.scale is not None:
            y = y * stack.scale[ids].reshape(-1, 1)
            y = y if stack.bias is None else y + stack.bias[ids].reshape(y.shape)
        return y
