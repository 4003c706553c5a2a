"""The mixture-of-experts half of a layer."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.blocks.ffn import bare_activation, ffn
from ref_engine.blocks.site import Site
from ref_engine.errors import ModelError
from ref_engine.reference.moe import Experts, Ids, checked, experts_of, route_to_chunks
from ref_engine.reference.sums import F32, lane_sum
from ref_engine.spec import ActivationSpec, ChunkSpec, LatentSpec, MoeSpec, RoutingSpec

log = logging.getLogger(__name__)


def moe(x: F32, m: MoeSpec, at: Site) -> F32:
    """(T, D) -> (T, D): the chosen experts' weighted sum, and what runs beside them."""
    inner = x if m.reads == "ffn" else entered(at)
    if m.norm is not None:
        inner = at.tap(m.norm.name, at.norm(inner, m.norm))
    logits = router(inner if m.routing.reads == "ffn" else entered(at), m.routing, at)
    bias = None if m.routing.bias is None else at.vector(m.routing.bias)
    ids, weights = at.ops.route(logits, m.n_used, m.routing, bias, table(m, at), at.tap if at.p.watched else None)
    note(ids, weights, m.n_expert, at)
    if m.latent is not None:
        inner = at.linear(inner, m.latent.down)
    y = at.ops.moe_ffn(inner, ids, weights, experts(m, at, "exps"), tap=at.tap if at.p.tracing else None)
    y = at.tap("ffn_moe_out", y)
    if m.latent is not None:
        y = widened(y, m.latent, at)
    if m.chunk is not None:
        y = with_chunks(y, logits, m, m.chunk, at)
    return y if m.shared is None else with_shared(y, x, m, at)


def entered(at: Site) -> F32:
    if at.entered is None:
        raise ValueError("a layer says what entered it")
    return at.entered


def router(x: F32, r: RoutingSpec, at: Site) -> F32:
    """(T, D) -> logits (T, E)"""
    weight, bias = at.map(r.router)
    logits = at.tap("ffn_moe_logits", at.ops.linear(x, weight))
    return logits if bias is None else at.tap("ffn_moe_logits_biased", logits + bias)


def table(m: MoeSpec, at: Site) -> Ids | None:
    """The experts (T, k) that a file's table gives to the token ids of this pass; None without a table."""
    if m.routing.table is None:
        return None
    weight = at[m.routing.table]
    return checked(weight.rows(at.p.ids), m.n_expert, f"tensor {weight.name}")


def experts(m: MoeSpec, at: Site, suffix: str) -> Experts:
    """The stacks ffn_*_{suffix} of a layer, put together once."""
    tensors = at.weights.layer(at.blk)
    key = ("experts", suffix, id(m))
    if key not in tensors.kept:
        tensors.kept[key] = m, experts_of(m, tensors, suffix)  # the spec too: nobody else may get its id
    found: Experts = tensors.kept[key][1]
    return found


def logs_experts() -> bool:
    """Whether somebody wants to read of each token's experts."""
    return log.isEnabledFor(logging.DEBUG)


def note(ids: Ids, weights: F32, n_expert: int, at: Site) -> None:
    """Count the experts' tokens, and tell whoever debugs."""
    at.p.expert_load.add(at.index, ids, n_expert, at.ops.count_experts)
    if logs_experts():
        chosen, rounded = ids.tolist(), np.round(weights.astype(np.float64), 4).tolist()
        log.debug("layer %d: %d experts, chosen %s, weights %s", at.index, n_expert, chosen, rounded)


def widened(y: F32, latent: LatentSpec, at: Site) -> F32:
    """What latent experts gave, back at the model's width: (T, latent width) -> (T, D)."""
    return at.linear(at.norm(y, latent.norm), latent.up)


def with_chunks(y: F32, logits: F32, m: MoeSpec, chunk: ChunkSpec, at: Site) -> F32:
    """y + scale * chunk_experts(y): (T, D) -> (T, D). No more of them than there are.

    Their steps are traced as ffn_adj_moe_*; llama.cpp gives them the names of the other experts' once more.
    """

    def tap(name: str, value: NDArray[Any]) -> NDArray[Any]:
        return at.tap(name.replace("ffn_moe", "ffn_adj_moe"), value)

    n_used = min(m.n_used, m.n_expert // chunk.of)
    ids, weights = route_to_chunks(logits, n_used, chunk.of, m.routing, tap)
    extra = at.ops.moe_ffn(y, ids, weights, experts(m, at, "chexps"), tap=tap if at.p.tracing else None)
    extra = at.tap("ffn_adj_moe_out", extra)
    return at.tap("ffn_final_moe_out", y + extra * np.float32(chunk.scale))


def with_shared(y: F32, x: F32, m: MoeSpec, at: Site) -> F32:
    """The experts' sum, plus the feed-forward network that reads every token: (T, D) -> (T, D)."""
    if m.shared is None:
        raise ModelError("there is no shared expert")
    s = bare_activation(x, m.shared, at) if isinstance(m.shared, ActivationSpec) else ffn(x, m.shared, at)
    s = at.tap(m.shared_name, s)
    if m.shared_gate:
        gate = at.vector("ffn_gate_inp_shexp.weight")
        if gate is None:
            raise ModelError(f"tensor blk.{at.blk}.ffn_gate_inp_shexp.weight is missing from the file")
        before, after, result = m.shared_gate_names
        logit = at.tap(before, lane_sum(x * gate)[:, None])
        s = at.tap(result, s * at.tap(after, at.ops.activation(logit, "sigmoid")))
    y = y + s
    return y if m.sum_scale is None else y * np.float32(m.sum_scale)
