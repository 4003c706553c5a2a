"""Attention over the keys and values that the cache keeps."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.site import Share, Site
from ref_engine.reference.attention import alibi_slopes, chunked_mask, full_mask
from ref_engine.reference.sums import F32
from ref_engine.spec import AttentionSpec, NormSpec, RopeSpec


def attention(x: F32, a: AttentionSpec, at: Site) -> F32:
    """(T, D) -> (T, D): project to heads, turn by position, remember, attend, project back."""
    q, k, v = projections(x, a, at)
    if not a.norm_after_rope:
        q, k = head_norm(q, a.q_norm, a, at, "Qcur_normed"), head_norm(k, a.k_norm, a, at, "Kcur_normed")
    q, k = turn(q, a.rope, at), turn(k, a.rope, at)
    if a.norm_after_rope:
        q, k = head_norm(q, a.q_norm, a, at, "Qcur_normed"), head_norm(k, a.k_norm, a, at, "Kcur_normed")
    q, k, v = at.tap("Qcur", q), at.tap("Kcur", k), at.tap("Vcur", v)
    y = at.tap("kqv_out", attend(q, k, v, a, at))
    return at.linear(y, "attn_output")


def projections(x: F32, a: AttentionSpec, at: Site) -> tuple[F32, F32, F32]:
    """(T, D) -> queries (T, H, Hd), keys (T, K, Hd), values (T, K, Vd)."""
    if a.fused:
        widths = np.cumsum([a.n_head * a.head_dim, a.n_head_kv * a.head_dim])
        q, k, v = np.split(at.linear(x, "attn_qkv"), widths, axis=-1)
    else:
        q, k, v = at.ops.linears(x, [at.map(name) for name in ("attn_q", "attn_k", "attn_v")])
    if a.clamp:
        q, k, v = (np.clip(part, np.float32(-a.clamp), np.float32(a.clamp)) for part in (q, k, v))
    return heads(q, a.n_head), heads(k, a.n_head_kv), heads(v, a.n_head_kv)


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


def attend(q: F32, k: F32, v: F32, a: AttentionSpec, at: Site) -> F32:
    """Remember the new keys and values, and attend to all: (T, H, Hd), (T, K, Hd), (T, K, Vd) -> (T, H * Vd)."""
    scale, sinks = a.scale, at.vector("attn_sinks.weight")
    if a.scale_queries:
        q, scale = q * np.float32(scale), 1.0
    slopes = alibi_slopes(a.n_head, a.alibi) if a.alibi else None
    inner = at.tap if at.p.tracing else None

    def run(share: Share) -> F32:
        rows = share.rows
        keys = share.cache.append(at.index, "k", k[rows])
        values = share.cache.append(at.index, "v", v[rows])
        seen = None
        if a.chunk is not None:
            seen = chunked_mask(share.positions, keys.shape[0], a.chunk)
        elif not a.causal:
            seen = full_mask(share.positions, keys.shape[0], a.window)
        return at.ops.attend(
            q[rows], keys, values, share.positions, scale=scale, window=a.window, cap=a.soft_cap,
            sinks=sinks, slopes=slopes, seen=seen, tap=inner,
        )  # fmt: skip

    return at.p.each(run)
