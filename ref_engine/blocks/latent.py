"""Multi-head latent attention over what the cache keeps: one short vector a token, or unpacked keys and values."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.attention import turn
from ref_engine.blocks.indexer import NONE_CHOSEN, Chosen, choose
from ref_engine.blocks.pools import choose_pools
from ref_engine.blocks.site import Share, Site
from ref_engine.place import joined
from ref_engine.quant.rows import first_numbers, spread_over
from ref_engine.reference.attention import causal_mask, temperatures
from ref_engine.reference.hadamard import spread
from ref_engine.reference.linear import by_head
from ref_engine.reference.sums import F32
from ref_engine.spec.indexer import PoolIndexSpec
from ref_engine.spec.latent import LatentAttentionSpec

_CHOSEN = "chosen tokens"


def latent_attention(x: F32, a: LatentAttentionSpec, at: Site) -> F32:
    """(T, D) -> (T, D)"""
    n = x.shape[0]
    if a.q_rank is None:
        low = x
        q, packed = at.ops.linears(x, [at.map("attn_q"), at.map("attn_kv_a_mqa")])
    else:
        low, packed = at.ops.linears(x, [at.map("attn_q_a"), at.map("attn_kv_a_mqa")])
        low = at.tap("qr", at.norm(low, a.q_norm))
        q = at.linear(low, "attn_q_b")
    q = at.tap("q", q.reshape(n, a.n_head, a.head_dim))
    c, k_rope = np.split(at.tap("kv_cmpr_pe", packed), [a.kv_rank], axis=-1)
    c = at.tap("kv_cmpr", at.norm(c, a.kv_norm))
    k_rope = at.tap("k_pe", turn(at.norm(k_rope, a.k_norm)[:, None], a.rope, at))
    q_nope, q_rope = np.split(q, [a.nope_dim], axis=-1)
    q_rope = at.tap("q_pe", turn(q_rope, a.rope, at))
    chosen = chosen_tokens(x, low, a, at)
    inner = absorbed if a.absorbed else unpacked
    y = at.tap("kqv_out", inner(q_nope, q_rope, c, k_rope, chosen, a, at))
    if a.gated:
        gate = at.tap("attn_gate_sigmoid", at.ops.activation(at.tap("attn_gate", at.linear(x, "attn_gate")), "sigmoid"))
        y = at.tap("attn_gated", (y.reshape(n, gate.shape[1], -1) * gate[..., None]).reshape(n, -1))
    return at.linear(y, "attn_output")


def chosen_tokens(x: F32, low: F32, a: LatentAttentionSpec, at: Site) -> Chosen:
    """What this layer's indexer chooses, or what the last one before it chose; empty where there is none."""
    if isinstance(a.indexer, PoolIndexSpec):
        at.p.kept[_CHOSEN] = choose_pools(x, low, a.indexer, at)
    elif a.indexer is not None and a.rope is not None:
        at.p.kept[_CHOSEN] = choose(x, low, a.indexer, a.rope, at)
    elif not a.follows:
        return NONE_CHOSEN
    chosen: Chosen = at.p.kept[_CHOSEN]
    return chosen


def absorbed(q_nope: F32, q_rope: F32, c: F32, k_rope: F32, chosen: Chosen, a: LatentAttentionSpec, at: Site) -> F32:
    """Attention in the space of c: (T, H, nope), (T, H, rope), (T, R), (T, 1, rope) -> (T, H * Vd)."""
    q_c = at.tap("q_nope_absorbed", each_head(q_nope, "attn_k_b", at))
    q = at.tap("Qcur", joined(q_c, q_rope))
    k = at.tap("Kcur", joined(c[:, None], k_rope))
    mixed = attend(q, k, None, chosen, a, at).reshape(q.shape[0], a.n_head, a.kv_rank)
    y = at.tap("kqv_mla", each_head(mixed, "attn_v_b", at))
    return y.reshape(y.shape[0], -1)


def unpacked(q_nope: F32, q_rope: F32, c: F32, k_rope: F32, chosen: Chosen, a: LatentAttentionSpec, at: Site) -> F32:
    """Attention with the keys and values of each head: as `absorbed`."""
    kv = at.tap("kv", at.linear(c, "attn_kv_b")).reshape(c.shape[0], a.n_head, a.nope_dim + a.v_dim)
    k_nope, v = np.split(kv, [a.nope_dim], axis=-1)
    q = at.tap("Qcur", joined(q_nope, q_rope))
    k = at.tap("Kcur", joined(k_nope, np.broadcast_to(k_rope, q_rope.shape)))
    return attend(q, k, at.tap("Vcur", v), chosen, a, at)


def each_head(x: F32, name: str, at: Site) -> F32:
    """A matrix for each head: (T, H, n) -> (T, H, m)."""
    stack, at_once = at[f"{name}.weight"], at.ops.by_head
    return by_head(x, stack, at.ops.linear) if at_once is None else at_once(x, stack)


def attend(q: F32, k: F32, v: F32 | None, chosen: Chosen, a: LatentAttentionSpec, at: Site) -> F32:
    """Remember the new keys and values and attend to all: (T, H, Hd) -> (T, H * width of a value).

    v None: the values are the first kv_rank features of the keys.
    """
    if a.temperature is not None:
        factors = np.asarray(temperatures(at.p.positions, a.temperature), like=q)
        q = at.tap("Qcur_attn_temp_scaled", q * factors[:, None, None])
    inner, sinks = at.tap if at.p.tracing else None, at.vector("attn_sinks.weight")

    def run(share: Share) -> F32:
        over_k, over_v = (1, 1) if v is None else spread_over(share.cache.type, k.shape[-1], v.shape[-1])
        keys = share.cache.append(at.index, "k", spread(k[share.rows], over_k))
        if v is None:
            values = first_numbers(keys, a.kv_rank)
        else:
            values = share.cache.append(at.index, "v", spread(v[share.rows], over_v))
        seen = chosen.get(share.rows.start)
        if seen is not None and a.window is not None:
            seen = seen & np.asarray(causal_mask(share.positions, keys.shape[0], a.window), like=q)
        y = at.ops.attend(
            spread(q[share.rows], over_k), keys, values, share.positions, scale=a.scale, window=a.window, cap=None,
            sinks=sinks, seen=seen, tap=inner,
        )  # fmt: skip
        return spread(y, over_v)

    return at.p.each(run)
