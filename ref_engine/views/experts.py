"""Expert routing: whom each token is sent to in each layer, how decidedly, and how evenly that is spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError
from ref_engine.model import Model
from ref_engine.reference.sums import F32
from ref_engine.spec import LayerSpec, ModelSpec, MoeSpec, RoutingSpec
from ref_engine.views.passes import Steps, finished, parts_of, passes, window

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class LayerRouting:
    """One layer's mixture, T tokens, k experts for each of them out of n_expert.

    ids (T, k) int32, best first. weights (T, k) float32: what each expert's result is multiplied by.
    entropy (T,), in nats, of the router's distribution (see `distribution`), most_entropy its largest possible value.
    load (n_expert,) int64: tokens sent to each. shared: a further expert reads every token.
    """

    layer: int
    n_expert: int
    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    entropy: F64
    most_entropy: float
    load: NDArray[np.int64]
    shared: bool


def mixture(layer: LayerSpec) -> MoeSpec | None:
    """The mixture of experts of a layer, if it has one."""
    return next((part for part in parts_of(layer) if isinstance(part, MoeSpec)), None)


def layers_with_experts(spec: ModelSpec) -> tuple[int, ...]:
    return tuple(i for i, layer in enumerate(spec.layers) if mixture(layer) is not None)


def experts_steps(
    model: Model, ids: Sequence[int], start: int | None = None, stop: int | None = None
) -> Steps[tuple[LayerRouting, ...]]:
    """As `experts`."""
    mixtures = {i: m for i, layer in enumerate(model.spec.layers) if (m := mixture(layer)) is not None}
    if not mixtures:
        raise RefEngineError("this model has no experts")
    known = model.checked_ids(ids).tolist()
    first, last = window(len(known), start, stop)
    parts: dict[int, list[tuple[NDArray[np.int32], NDArray[np.float32], F64]]] = {i: [] for i in mixtures}
    names = [f"{name}-{i}" for i in mixtures for name in ("ffn_moe_probs", "ffn_moe_topk", *_WEIGHTS)]
    for piece in passes(model, known[:last] if model.spec.causal else known, names):
        yield
        rows = slice(max(first, piece.start) - piece.start, min(last, piece.stop) - piece.start)
        if rows.start < rows.stop:
            for i, m in mixtures.items():
                parts[i].append(_routed(piece.seen, i, m, rows))
    return tuple(_joined(i, m, parts[i]) for i, m in mixtures.items())


def experts(
    model: Model, ids: Sequence[int], start: int | None = None, stop: int | None = None
) -> tuple[LayerRouting, ...]:
    """The routing of every layer that has experts, for a text ids (T,) or its positions start .. stop - 1.

    Raises RefEngineError for a model that has none.
    """
    return finished(experts_steps(model, ids, start, stop))


# The forms that the weights go through (reference/moe.py), the last of them first.
_WEIGHTS = ("ffn_moe_weights_scaled", "ffn_moe_weights_norm", "ffn_moe_weights_softmax", "ffn_moe_weights")


def _routed(
    seen: Mapping[str, F32], layer: int, m: MoeSpec, rows: slice
) -> tuple[NDArray[np.int32], NDArray[np.float32], F64]:
    """Experts and weights of some tokens (n, k), and their entropies (n,)."""
    name = next(name for name in _WEIGHTS if f"{name}-{layer}" in seen)
    chosen: NDArray[np.int32] = seen[f"ffn_moe_topk-{layer}"][rows].astype(np.int32)
    scores = seen[f"ffn_moe_probs-{layer}"][rows].astype(np.float64)
    return chosen, seen[f"{name}-{layer}"][rows], entropy(distribution(scores, chosen, m.routing))


def distribution(scores: F64, chosen: NDArray[np.int32], r: RoutingSpec) -> F64:
    """What a router's scores (T, E), after its gate, say as probabilities: each row sums to 1.

    A softmax over all experts is one. Sigmoids, and square roots of softplus, are divided by their sum, as weights of
    chosen experts are. Where the softmax comes after the choice, it is over the chosen k: (T, k).
    """
    if r.gate == "softmax":
        return scores
    if r.gate == "softmax_weight":
        logits = np.take_along_axis(scores, chosen.astype(np.int64), axis=-1)
        p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    else:
        p = scores
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


def entropy(p: F64) -> F64:
    """-sum p ln p over the last axis, in nats; 0 ln 0 is 0."""
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1) + 0.0)


def _joined(
    layer: int, m: MoeSpec, parts: Sequence[tuple[NDArray[np.int32], NDArray[np.float32], F64]]
) -> LayerRouting:
    ids, weights, entropies = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    n = m.n_used if m.routing.gate == "softmax_weight" else m.n_expert
    load = np.bincount(ids.reshape(-1), minlength=m.n_expert)
    return LayerRouting(layer, m.n_expert, ids, weights, entropies, math.log(n), load, m.shared is not None)
