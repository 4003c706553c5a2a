"""Attention to recent tokens and to compressed keys of all that came before."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ref_engine.blocks.latent import each_head
from ref_engine.blocks.site import Share, Site
from ref_engine.quant.rows import numbers
from ref_engine.reference.attention import causal_mask
from ref_engine.reference.compressed import ended, interleaved, pooled, windows
from ref_engine.reference.hadamard import hadamard
from ref_engine.reference.indexer import Mask, index_scores, marked, ranked
from ref_engine.reference.rope import rope_last, rope_table
from ref_engine.reference.sums import F32
from ref_engine.spec import CompressedAttentionSpec, CompressorSpec, GroupIndexSpec, RopeSpec

Keys = Mapping[int, F32]  # by the first row of each sequence's share: the keys of its complete groups (G, width)
Chosen = Mapping[int, Mask]  # the groups that each new token attends to, (rows, G) bool


def compressed_attention(x: F32, a: CompressedAttentionSpec, at: Site) -> F32:
    """(T, D) -> (T, D)"""
    n = x.shape[0]
    cos, sin = at.p.ropes[a.rope]
    low, kv = at.ops.linears(x, [at.map("attn_q_a"), at.map("attn_kv")])
    low = at.tap("qr_norm", at.norm(at.tap("qr", low), a.q_norm))
    q = at.linear(low, "attn_q_b").reshape(n, a.n_head, a.head_dim)
    q = at.tap("q", rope_last(at.tap("q_norm", at.norm(q, a.head_norm)), cos, sin, a.rope.pairing))
    kv = at.tap("kv_norm", at.norm(kv, a.kv_norm))
    kv = at.tap("kv", rope_last(kv[:, None], cos, sin, a.rope.pairing))
    y = attend(q, kv, *compressed(x, low, a, at), a, at).reshape(n, a.n_head, a.head_dim)
    y = at.tap("attn_derope", rope_last(y, cos, -sin, a.rope.pairing))
    y = at.tap("attn_wo_a", each_head(y.reshape(n, a.groups, -1), "attn_output_a", at))
    return at.linear(y.reshape(n, -1), "attn_output_b")


def compressed(x: F32, low: F32, a: CompressedAttentionSpec, at: Site) -> tuple[Keys, Chosen]:
    """The groups' keys, and which of them each new token attends to; nothing in layers without a compressor.

    x (T, D), low-rank queries (T, R)
    """
    if a.compressor is None:
        return {}, {}
    name = "csa" if a.compressor.overlap else "hca"
    keys = compressed_keys(x, a.compressor, a.rope, name, lambda keys: keys, at)
    if a.index is not None:
        return keys, chosen_groups(x, low, a.index, a.rope, at)
    return keys, {s.rows.start: ended(s.positions, a.compressor.ratio, len(keys[s.rows.start])) for s in at.p.shares}


def compressed_keys(
    x: F32, c: CompressorSpec, rope: RopeSpec, name: str, finish: Callable[[F32], F32], at: Site
) -> Keys:
    """Remember what the new tokens (T, D) contribute, and give the keys of all complete groups, (G, width) of each
    sequence. finish: what is done to a key before it is kept. name: the first part of llama.cpp's names."""
    kv, gate = at.ops.linears(x, [at.map(f"{c.name}_kv"), at.map(f"{c.name}_gate")])
    kv, gate = at.tap(f"{name}_state_kv", kv), at.tap(f"{name}_state_score", gate)
    gate = at.tap(f"{name}_state_score_ape", gate + at[f"{c.name}_ape.weight"].f32()[at.p.positions % c.ratio])

    def of(share: Share) -> F32:
        late = c.span - 1
        values = np.concatenate([share.cache.state(at.index, f"{c.name} kv"), kv[share.rows]])
        gates = np.concatenate([share.cache.state(at.index, f"{c.name} gate"), gate[share.rows]])
        share.cache.set_state(at.index, f"{c.name} kv", values[-late:].copy())
        share.cache.set_state(at.index, f"{c.name} gate", gates[-late:].copy())
        before = share.positions[0] - late + np.arange(len(gates)) < 0
        gates = np.where(np.asarray(before[:, None], like=kv), np.float32(-np.inf), gates)
        ends = np.flatnonzero((share.positions + 1) % c.ratio == 0)
        new = np.zeros((len(share.positions), c.width), np.float32, like=kv)
        if ends.size:
            y = pooled(*(windows(v, ends + late, c.ratio, c.overlap) for v in (values, gates)))
            cos, sin = at.lifted(rope_table(rope, share.positions[ends] + 1 - c.ratio))
            y = rope_last(at.norm(y, c.norm)[:, None], cos, sin, rope.pairing)[:, 0]
            new[ends] = finish(at.tap(f"{name}_state_compress", y))
        rows = share.cache.append(at.index, c.name, new)
        return rows[c.ratio - 1 :: c.ratio].astype(np.float32)

    return {share.rows.start: of(share) for share in at.p.shares}


def chosen_groups(x: F32, low: F32, s: GroupIndexSpec, rope: RopeSpec, at: Site) -> Chosen:
    """The lightning indexer over the keys of groups."""
    cos, sin = at.p.ropes[rope]
    finish = hadamard if s.spread else _as_it_is
    keys = compressed_keys(x, s.keys, rope, "lid", finish, at)
    q = at.tap("lid_q", at.linear(low, "indexer.attn_q_b").reshape(x.shape[0], s.n_head, s.head_dim))
    q = at.tap("lid_q_rot", finish(at.tap("lid_q_rope", rope_last(q, cos, sin, rope.pairing))))
    weights = at.linear(x, "indexer.proj") * np.float32(1 / np.sqrt(s.head_dim * s.n_head))
    weights = at.tap("lid_weights", weights)

    def of(share: Share) -> Mask:
        known = keys[share.rows.start]
        visible = np.asarray(ended(share.positions, s.keys.ratio, len(known)), like=known)
        if len(known) <= s.top_k and not at.p.tracing:
            return visible
        scores = index_scores(q[share.rows], known, weights[share.rows])
        scores = at.tap("lid_score_masked", np.where(visible, scores, np.float32(-np.inf)))
        return marked(ranked(scores, visible, s.top_k), visible)

    return {share.rows.start: of(share) for share in at.p.shares}


def _as_it_is(x: F32) -> F32:
    return np.ascontiguousarray(x, like=x)


def attend(q: F32, kv: F32, keys: Keys, chosen: Chosen, a: CompressedAttentionSpec, at: Site) -> F32:
    """Remember the new tokens' vectors, and attend: (T, H, Hd), (T, 1, Hd) -> (T, H * Hd)."""
    tap, sinks = at.tap if at.p.tracing else None, at.vector("attn_sinks.weight")

    def run(share: Share) -> F32:
        k = share.cache.append(at.index, "k", kv[share.rows])
        seen = np.asarray(causal_mask(share.positions, k.shape[0], a.window), like=q)
        if a.compressor is not None:
            first, ratio = share.rows.start, a.compressor.ratio
            k = interleaved(numbers(k), keys[first][:, None], ratio, axis=0)
            seen = interleaved(seen, np.asarray(chosen[first], like=q), ratio, axis=1)
        return at.ops.attend(
            q[share.rows], k, k, share.positions, scale=a.scale, window=None, cap=None, sinks=sinks, seen=seen, tap=tap
        )

    name = "attn_raw" if a.compressor is None else "attn_hca" if a.index is None else "attn_csa_lid"
    return at.tap(name, at.p.each(run))
