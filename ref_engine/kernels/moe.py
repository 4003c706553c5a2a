"""The compiled mixture of experts: reference `route` and `moe_ffn` in one call each; where the matrices come from."""

from __future__ import annotations

import numpy as np

from ref_engine.compat import native
from ref_engine.kernels.ops import Kernels, as_f32, has_kernel
from ref_engine.reference import ffn, moe
from ref_engine.reference.moe import Experts, Ids, Stack, Tap, checked
from ref_engine.reference.sums import F32
from ref_engine.spec import RoutingSpec
from ref_engine.weights import Weight

_STACK = "stack of rows of 16"


def moe_ffn(kernels: Kernels, x: F32, ids: Ids, weights: F32, experts: Experts, *, tap: Tap | None = None) -> F32:
    """As reference moe_ffn in q8 mode: x (T, D), ids (T, k), weights (T, k) -> (T, D).

    A tap, a type without a kernel, halves that are no whole groups of rows, and experts that exceed the bounded cache
    take the composition, one matrix at a time, with the same bits. Raises ModelError for an id that is no expert's.
    """
    up = experts.up.weight
    ids = np.ascontiguousarray(ids)
    if ids.dtype != np.int32 or not native.inside(ids, up.shape[0]):
        ids = checked(ids, up.shape[0], up.name)
    if tap is not None or x.shape[0] == 0 or not in_one_call(experts, ids):
        return moe.moe_ffn(x, ids, weights, experts, tap=tap, linear=kernels.linear, glu=kernels.glu)
    gated = experts.fused or experts.gate is not None
    out = np.empty((x.shape[0], experts.down.weight.shape[1]), np.float32)
    kernels.table.moe(
        as_f32(x),
        ids,
        as_f32(weights),
        located(experts.up, ids, kernels),
        None if experts.gate is None else located(experts.gate, ids, kernels),
        located(experts.down, ids, kernels),
        experts.activation,
        experts.constants if gated and experts.activation in ffn.UNITS else (),
        experts.fused,
        experts.weigh_input,
        out,
        kernels.n_threads,
    )
    return out


def route(
    kernels: Kernels,
    logits: F32,
    n_used: int,
    r: RoutingSpec,
    bias: F32 | None = None,
    given: Ids | None = None,
    tap: Tap | None = None,
) -> tuple[Ids, F32]:
    """As reference route: logits (T, E) -> (T, k), (T, k).

    A tap, experts that a table gives, and gates without a kernel take the definition.
    """
    if tap is not None or given is not None or r.gate not in native.GATES:
        return moe.route(logits, n_used, r, bias, given, tap)
    chosen = (logits.shape[0], min(n_used, logits.shape[1]))
    ids, weights = np.empty(chosen, np.int32), np.empty(chosen, np.float32)
    kernels.table.route(
        as_f32(logits),
        *routing(r, bias),
        ids,
        weights,
        kernels.n_threads,
    )
    return ids, weights


def routing(r: RoutingSpec, bias: F32 | None) -> native.Routing:
    """What a spec says, as the kernel takes it."""
    return (
        optional(bias),
        r.gate,
        r.select_by,
        r.groups,
        r.groups_used,
        r.soft_cap or 0.0,
        1 / r.soft_cap if r.soft_cap else 0.0,
        r.normalise,
        float(moe.LEAST_SUM),
        r.scale,
    )


def in_one_call(experts: Experts, ids: Ids) -> bool:
    """Whether the kernel knows these experts, and all that are chosen may be in memory together."""
    stacks = stacks_of(experts)
    return known(experts) and (all(w.expert_cache is None for w in stacks) or fits(stacks, ids))


def stacks_of(experts: Experts) -> list[Weight]:
    return [s.weight for s in (experts.up, experts.gate, experts.down) if s is not None]


def known(experts: Experts) -> bool:
    """Whether the kernel knows these experts."""
    whole = not experts.fused or experts.down.weight.shape[2] % 16 == 0
    return whole and all(has_kernel(w.type) for w in stacks_of(experts))


def fits(stacks: list[Weight], ids: Ids) -> bool:
    """Whether the matrices of the chosen experts fit in the bounded cache, where there is one."""
    chosen = np.unique(ids).size
    needed = chosen * sum(held_bytes(w) for w in stacks)
    return all(w.expert_cache is None or needed <= w.expert_cache.budget for w in stacks)


def held_bytes(w: Weight) -> int:
    """What the matrix of one expert takes when it is used: repacked, some types are larger than in the file."""
    experts, rows, columns = w.shape
    return w.nbytes // experts if w.is_plain else native.packed_bytes(w.type.name, rows, columns)


def located(stack: Stack, ids: Ids, kernels: Kernels) -> native.ExpertMap:
    """The matrices of the chosen experts, repacked if they are not yet, their biases and their factors.

    Those of a bounded cache are held by what this returns, since the cache may drop them.
    """
    places = places_of(stack.weight)
    for e in places.missing(ids):
        places.put(e, kernels.packed(stack.weight.expert(e)))
    return places, optional(stack.bias), optional(stack.scale)


def mapped(stack: Stack) -> native.ExpertMap:
    """The same of a stack that is not bounded, for experts that are yet to be chosen."""
    return places_of(stack.weight), optional(stack.bias), optional(stack.scale)


def places_of(w: Weight) -> native.Stack:
    """Where the matrices of a stack are, those that have been used; made anew each time where they may be dropped."""
    bounded = w.expert_cache is not None and not w.is_plain
    found: native.Stack | None = None if bounded else w.kept.get(_STACK)
    if found is None:
        found = native.Stack(w.type.name, *w.shape)
        if w.is_plain:
            found.lay(w.data)
        if not bounded:
            w.kept[_STACK] = found
    return found


def optional(x: F32 | None) -> F32 | None:
    return None if x is None else as_f32(x)
