"""A mixture of experts: which experts a token takes, how it weighs them, and what they compute.

Shazeer et al. 2017; the forms of the gate and of the weights as llama.cpp's build_moe_ffn has them. Everything is row
by row, and each token's experts are added in the order of its ranking, so no bit depends on what else is in a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ModelError
from ref_engine.reference.elementary import exp, sigmoid, softplus, tanh
from ref_engine.reference.ffn import activation, glu, glu_name
from ref_engine.reference.linear import linear_f32, linear_q8
from ref_engine.reference.sums import F32, lane_sum
from ref_engine.spec import MoeSpec, RoutingSpec
from ref_engine.weights import LayerTensors, Weight

Ids = NDArray[np.int32]  # (T, k): expert numbers, the best first
Tap = Callable[[str, NDArray[Any]], NDArray[Any]]
LEAST_SUM = np.float32(6.103515625e-5)  # weights are divided by no less: the smallest normal half-precision number


def same(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """The tap of somebody who does not look."""
    return value


def soft_max(x: F32) -> F32:
    """e**x_i / sum_j e**x_j over the last axis, the largest taken off first."""
    e = exp(x - x.max(axis=-1, keepdims=True))
    return e * (np.float32(1) / lane_sum(e))[..., None]


GATES: dict[str, Callable[[F32], F32]] = {
    "softmax": soft_max,
    "sigmoid": sigmoid,
    "softmax_weight": lambda logits: logits,
    "sqrt_softplus": lambda logits: np.sqrt(softplus(logits)),
}


def ranking(scores: F32) -> Ids:
    """Indices of the last axis from the largest value to the smallest; of equal values the first comes first."""
    return np.argsort(-scores, axis=-1, kind="stable").astype(np.int32)


def best_groups(scores: F32, groups: int, groups_used: int) -> Ids:
    """(T, E) -> (T, groups_used): the groups of E / groups experts with the largest sum of their two best scores."""
    by_group = scores.reshape(scores.shape[0], groups, -1)
    best = np.take_along_axis(by_group, ranking(by_group)[..., :2], axis=-1)
    total = best[..., 0] if best.shape[-1] == 1 else best[..., 0] + best[..., 1]
    return ranking(total)[:, :groups_used]


def only_groups(scores: F32, chosen: Ids, groups: int) -> F32:
    """(T, E) -> (T, E): minus infinity for experts of other groups."""
    allowed = (chosen[:, :, None] == np.arange(groups, like=chosen)).any(axis=1)  # (T, groups)
    allowed = np.repeat(allowed, scores.shape[1] // groups, axis=1)
    return np.where(allowed, scores, np.float32(-np.inf))


def route(
    logits: F32,
    n_used: int,
    r: RoutingSpec,
    bias: F32 | None = None,
    given: Ids | None = None,
    tap: Tap | None = None,
) -> tuple[Ids, F32]:
    """Router logits (T, E) -> the experts of each token (T, k), best first, and their weights (T, k).

        p = gate(logits)                          s = p + bias, or what select_by says
        experts = the k largest s, of the groups with the largest sums of two s
        w = p[experts]; softmax(w); w / max(sum w, 2**-14); scale * w     each where the spec has it

    bias: (E,), added for choosing only (Wang et al. 2024; DeepSeek-V3). given: the experts, if they are not for the
    router to choose. Groups: DeepSeek-V3.
    """
    tap = tap or same
    if r.soft_cap is not None:
        logits = np.float32(r.soft_cap) * tanh(logits * np.float32(1 / r.soft_cap))
    p = tap("ffn_moe_probs", GATES[r.gate](logits))
    s = {"gate": p, "logits": logits}.get(r.select_by)
    if s is None:
        s = tap("ffn_moe_probs_biased", sigmoid(logits))  # so llama.cpp calls it
    if bias is not None:
        s = tap("ffn_moe_probs_biased", s + bias)
    if r.groups > 1:
        groups = tap("ffn_moe_group_topk", best_groups(s, r.groups, r.groups_used))
        s = tap("ffn_moe_probs_masked", only_groups(s, groups, r.groups))
    if given is None:
        given = tap("ffn_moe_argsort", ranking(s))[:, :n_used]
    ids = checked(tap("ffn_moe_topk", np.asarray(given, like=p)), logits.shape[1], r.router)
    return ids, weigh(p, ids, r, tap)


def weigh(p: F32, ids: Ids, r: RoutingSpec, tap: Tap = same) -> F32:
    """Scores (T, E) and experts (T, k) -> weights (T, k)."""
    w = tap("ffn_moe_weights", np.take_along_axis(p, ids, axis=-1))
    if r.gate == "softmax_weight":
        w = tap("ffn_moe_weights_softmax", soft_max(w))
    if r.normalise:
        total = tap("ffn_moe_weights_sum", lane_sum(w)[:, None])
        w = tap("ffn_moe_weights_norm", w / tap("ffn_moe_weights_sum_clamped", np.maximum(total, LEAST_SUM)))
    if r.scale is not None:
        w = tap("ffn_moe_weights_scaled", w * np.float32(r.scale))
    return w


def route_to_chunks(logits: F32, n_used: int, of: int, r: RoutingSpec, tap: Tap = same) -> tuple[Ids, F32]:
    """Router logits (T, E) -> chunk experts (T, k) and their weights (T, k): chunk c serves the experts of // c.

    A token takes the chunks of its n_used best experts, one of them several times if several are in it. Their weights
    are the scores of the experts that have the chunks' numbers, as in build_moe_ffn.
    """
    p = GATES[r.gate](logits)
    best = ranking(sigmoid(logits) if r.select_by == "sigmoid" else p)[:, :n_used]
    chunks = tap("ffn_moe_topk", (best.astype(np.float32) * np.float32(1 / of)).astype(np.int32))
    ids = checked(chunks, logits.shape[1] // of, r.router)
    return ids, weigh(p, ids, r, tap)


def checked(ids: NDArray[Any], n_expert: int, name: str) -> Ids:
    """Expert numbers as int32. Raises ModelError if one is not a number of one of n_expert experts."""
    outside = ids[~((ids >= 0) & (ids < n_expert) & (ids == np.floor(ids)))]
    if outside.size:
        raise ModelError(f"{name}: expert {outside[0]} is not one of 0..{n_expert - 1}")
    return ids.astype(np.int32)


def count_experts(ids: Ids, n_expert: int, counts: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Tokens of each expert, ids (T, k) -> (E,); added to `counts` in its place where that is given."""
    found = np.bincount(ids.reshape(-1), minlength=n_expert)
    if counts is None:
        return found
    counts += found
    return counts


@dataclass(frozen=True)
class Stack:
    """One linear map for each expert: weight (E, rows, columns), bias (E, rows), factor (E,)."""

    weight: Weight
    bias: F32 | None = None
    scale: F32 | None = None


@dataclass(frozen=True)
class Experts:
    """The experts of a layer: down_e(activation(gate_e x) * (up_e x)), or down_e(activation(up_e x)) without a gate.

    fused: gate and up are the two halves of `up`. constants: of the activation. weigh_input: see `moe_ffn`.
    """

    up: Stack  # (E, F, D), fused (E, 2 F, D)
    down: Stack  # (E, D, F)
    activation: str
    gate: Stack | None = None  # (E, F, D)
    fused: bool = False
    constants: tuple[float, ...] = ()
    weigh_input: bool = False


def experts_of(m: MoeSpec, tensors: LayerTensors, suffix: str = "exps") -> Experts:
    """The stacks ffn_*_{suffix} of a layer."""

    def stack(name: str, factors: str = "") -> Stack:
        bias, scale = f"ffn_{name}_{suffix}.bias", f"ffn_{factors or name}_{suffix}.scale"
        return Stack(
            tensors[f"ffn_{name}_{suffix}.weight"],
            tensors.vector(bias) if m.bias != "no" else None,
            tensors.vector(scale) if m.scales != "no" else None,
        )

    return Experts(
        up=stack("gate_up", "up") if m.fused else stack("up"),
        down=stack("down"),
        activation=m.activation,
        gate=stack("gate") if m.gated and not m.fused else None,
        fused=m.fused,
        constants=m.constants,
        weigh_input=m.weigh_input,
    )


class Linear(Protocol):
    def __call__(self, x: F32, weight: Weight, bias: F32 | None = None) -> F32: ...


class Glu(Protocol):
    def __call__(self, gate: F32, up: F32, activation: str, constants: tuple[float, ...] = ()) -> F32: ...


def moe_ffn(
    x: F32, ids: Ids, weights: F32, experts: Experts, *, tap: Tap | None = None, linear: Linear, glu: Glu = glu
) -> F32:
    """x (T, D), experts of each token (T, k), weights (T, k) -> (T, D): sum over r of weights[r] * expert[ids[r]](x).

    The terms are rounded and added in the order of r. weigh_input: expert(weight * x) instead. `tap` sees the steps,
    (T, k, ·) each, under llama.cpp's names. Raises ModelError for an id that is no expert's.
    """
    tap = tap or same
    ids = checked(ids, experts.up.weight.shape[0], experts.up.weight.name)
    of_token = tap("ffn_moe_weighted", x[:, None] * weights[..., None]) if experts.weigh_input else x
    h = hidden(of_token, ids, experts, linear, glu, tap)
    y = mapped(h, ids, experts.down, linear, "ffn_moe_down", tap)
    if not experts.weigh_input:
        y = tap("ffn_moe_weighted", y * weights[..., None])
    total = y[:, 0]
    for r in range(1, y.shape[1]):
        total = total + y[:, r]
    return total


def hidden(x: F32, ids: Ids, experts: Experts, linear: Linear, glu: Glu, tap: Tap) -> F32:
    """(T, D) or (T, k, D) -> (T, k, F): up, gate and activation."""
    if experts.fused:
        both = mapped(x, ids, experts.up, linear, "ffn_moe_gate_up", tap)
        gate, up = (np.ascontiguousarray(half, like=half) for half in np.split(both, 2, axis=-1))
        gate, up = tap("ffn_moe_gate", gate), tap("ffn_moe_up", up)
    else:
        up = mapped(x, ids, experts.up, linear, "ffn_moe_up", tap)
        if experts.gate is None:
            return tap(f"ffn_moe_{experts.activation}", activation(up, experts.activation))
        gate = mapped(x, ids, experts.gate, linear, "ffn_moe_gate", tap)
    rows = (-1, up.shape[-1])
    flat = glu(gate.reshape(rows), up.reshape(rows), experts.activation, experts.constants)
    return tap(f"ffn_moe_{glu_name(experts.activation)}", flat.reshape(up.shape))


def mapped(x: F32, ids: Ids, stack: Stack, linear: Linear, name: str, tap: Tap) -> F32:
    """x (T, columns), or (T, k, columns) with one for each choice -> (T, k, rows): W_e x * scale_e + bias_e.

    Each expert's weights are used once, for all its tokens together.
    """
    y = np.empty((*ids.shape, stack.weight.shape[1]), np.float32, like=x)
    for e in np.unique(ids).tolist():
        t, r = np.nonzero(ids == e)
        y[t, r] = linear(x[t] if x.ndim == 2 else x[t, r], stack.weight.expert(e))
    y = tap(name, y)
    if stack.scale is not None:
        y = tap(f"{name}_scaled", y * stack.scale[ids][..., None])
    if stack.bias is not None:
        y = tap(f"{name}_biased", y + stack.bias[ids])
    return y


moe_ffn_f32 = partial(moe_ffn, linear=linear_f32)
moe_ffn_q8 = partial(moe_ffn, linear=linear_q8)
