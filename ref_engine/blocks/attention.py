"""Attention over the keys and values that the cache keeps."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.indexer import NONE_CHOSEN, Chosen, choose_blocks
from ref_engine.blocks.pools import choose_means
from ref_engine.blocks.site import Share, Site
from ref_engine.quant.rows import spread_over
from ref_engine.reference.attention import alibi_slopes, chunked_mask, full_mask, temperatures
from ref_engine.reference.elementary import sigmoid, softplus
from ref_engine.reference.hadamard import spread
from ref_engine.reference.sums import F32
from ref_engine.spec import AttentionSpec, MeanIndexSpec, NormSpec, RopeSpec

GATES = {"sigmoid": sigmoid, "softplus": softplus}


def attention(x: F32, a: AttentionSpec, at: Site) -> F32:
    """(T, D) -> (T, D): project to heads, turn by position, remember, attend, project back."""
    q, k, v = projections(x, a, at)
    q, gate = np.split(q, 2, axis=-1) if a.gate == "query" else (q, None)
    q, k = at.tap_if_named("Qcur_mapped", q), at.tap_if_named("Kcur_mapped", k)
    if not a.norm_after_rope:
        q, k = head_norm(q, a.q_norm, a, at, "Qcur_normed"), head_norm(k, a.k_norm, a, at, "Kcur_normed")
    q, k = turn(q, a.rope, at), turn(k, a.rope, at)
    q, k = at.tap_if_named("Qcur_turned", q), at.tap_if_named("Kcur_turned", k)
    if a.norm_after_rope:
        q, k = head_norm(q, a.q_norm, a, at, "Qcur_normed"), head_norm(k, a.k_norm, a, at, "Kcur_normed")
    q, k, v = at.tap("Qcur", q), at.tap("Kcur", k), at.tap("Vcur", v)
    chosen = chosen_blocks(x, a, at)
    y = at.tap("kqv_out", attend(tempered(q, a, at), k, v, a, at, chosen))
    y = at.linear(gated(y, x, gate, a, at), "attn_output")
    return y if a.output_scale is None else y * np.float32(a.output_scale)


def projections(x: F32, a: AttentionSpec, at: Site) -> tuple[F32, F32, F32]:
    """(T, D) -> queries (T, H, Hd), keys (T, K, Hd), values (T, K, Vd). Gates may lie behind each query."""
    if a.fused:
        widths = np.cumsum([a.n_head * a.query_dim, a.n_head_kv * a.head_dim, a.n_head_kv * a.value_dim])
        qkv = at.linear(x, "attn_qkv")
        if a.split_bias:
            qkv = qkv + np.concatenate([at[f"{name}.bias"].f32() for name in ("attn_q", "attn_k", "attn_v")])
        q, k, v, _ = np.split(qkv, widths, axis=-1)
    else:
        q, k, v = at.linears(x, ["attn_q", "attn_k", "attn_v"])
    if a.clamp:
        q, k, v = (np.clip(part, np.float32(-a.clamp), np.float32(a.clamp)) for part in (q, k, v))
    return heads(q, a.n_head), heads(k, a.n_head_kv), heads(v, a.n_head_kv)


def chosen_blocks(x: F32, a: AttentionSpec, at: Site) -> Chosen:
    """The tokens that each group of heads attends to; empty where nothing is chosen."""
    if isinstance(a.index, MeanIndexSpec):
        return choose_means(x, a.index, a.rope, at)
    return NONE_CHOSEN if a.index is None else choose_blocks(x, a.index, a.rope, at)


def heads(x: F32, n: int) -> F32:
    """(T, n * Hd) -> (T, n, Hd)"""
    return x.reshape(x.shape[0], n, -1)


def head_norm(x: F32, norm: NormSpec | None, a: AttentionSpec, at: Site, name: str) -> F32:
    """(T, n, Hd) -> (T, n, Hd), each head normalised on its own, or all heads of a token together."""
    if norm is None:
        return x
    y = at.norm(x.reshape(x.shape[0], -1), norm).reshape(x.shape) if a.norm_over == "all" else at.norm(x, norm)
    return at.tap(name, y)


def turn(x: F32, rope: RopeSpec | None, at: Site) -> F32:
    """Rotary position embedding; x itself in a layer without."""
    if rope is None:
        return x
    cos, sin = at.p.ropes[rope]
    return at.ops.rope(x, cos, sin, rope.pairing)


def tempered(q: F32, a: AttentionSpec, at: Site) -> F32:
    """Queries by their positions' temperatures, where the layer has any: (T, H, Hd) -> (T, H, Hd)."""
    if a.temperature is None:
        return q
    factors = np.asarray(temperatures(at.p.positions, a.temperature), like=q)
    return at.tap("Qcur_attn_temp_scaled", q * factors[:, None, None])


def gated(y: F32, x: F32, gate: F32 | None, a: AttentionSpec, at: Site) -> F32:
    """What the heads mixed (T, H * Vd), times the gates that the layer's input x (T, D) asks for.

    gate: before the sigmoid, one for each feature (T, H, Hd), where it came with the queries.
    """
    if gate is not None:
        return at.tap("attn_gated", y * at.tap("gate_sigmoid", at.ops.activation(gate.reshape(y.shape), "sigmoid")))
    if a.gate == "no":
        return y
    gate = at.tap("attn_gate", GATES[a.gate_by](at.linear(x, "attn_gate")))
    by_head = y.reshape(y.shape[0], gate.shape[1], -1) if a.gate == "head" else y
    return at.tap("attn_gated", (by_head * gate.reshape(*gate.shape, *[1] * (by_head.ndim - 2))).reshape(y.shape))


def attend(q: F32, k: F32, v: F32, a: AttentionSpec, at: Site, chosen: Chosen = NONE_CHOSEN) -> F32:
    """Remember the new keys and values, and attend to all, or to the chosen for each group of heads.

    (T, H, Hd), (T, K, Hd), (T, K, Vd) -> (T, H * Vd)
    """
    scale, sinks = a.scale, at.vector("attn_sinks.weight")
    if a.scale_queries:
        q, scale = at.tap("Qcur_scaled", q * np.float32(scale)), 1.0
    slopes = alibi_slopes(a.n_head, a.alibi) if a.alibi else None
    inner = at.tap if at.p.tracing else None

    def run(share: Share) -> F32:
        rows = share.rows
        over_k, over_v = spread_over(share.cache.type, k.shape[-1], v.shape[-1])
        keys = share.cache.append(at.index, "k", spread(k[rows], over_k))
        values = share.cache.append(at.index, "v", spread(v[rows], over_v))
        seen = None
        if a.chunk is not None:
            seen = chunked_mask(share.positions, keys.shape[0], a.chunk)
        elif not a.causal:
            seen = full_mask(share.positions, keys.shape[0], a.window, a.window_behind)
        elif (groups := chosen.get(rows.start)) is not None:
            seen = np.repeat(groups, a.n_head // groups.shape[0], axis=0)
        y = at.ops.attend(
            spread(q[rows], over_k), keys, values, share.positions, scale=scale, window=a.window, cap=a.soft_cap,
            sinks=sinks, slopes=slopes, seen=seen, tap=inner,
        )  # fmt: skip
        return spread(y, over_v)

    return at.p.each(run)
