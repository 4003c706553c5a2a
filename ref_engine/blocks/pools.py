"""Layers that choose groups of neighbouring tokens by one key for each group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ref_engine.blocks.indexer import Chosen
from ref_engine.blocks.site import Share, Site
from ref_engine.reference.indexer import (
    Mask,
    block_means,
    complete,
    highest,
    index_scores,
    pooled_keys,
    token_scores,
    with_tail,
)
from ref_engine.reference.rope import rope_table
from ref_engine.reference.sums import F32
from ref_engine.spec import MeanIndexSpec, PoolIndexSpec, RopeSpec


def choose_pools(x: F32, low: F32, spec: PoolIndexSpec, at: Site) -> Chosen:
    """The lightning indexer over pools: x (T, D), low-rank queries (T, R) -> for each sequence (rows, S) bool."""
    q = at.tap("indexer_q", at.linear(low, "indexer.attn_q_b").reshape(x.shape[0], spec.n_head, spec.head_dim))
    names = ("indexer.attn_k", "indexer_compressor_gate", "indexer.proj")
    k, gate, weights = at.ops.linears(x, [at.map(name) for name in names])
    k, gate = at.tap("indexer_k", at.norm(k, spec.k_norm)), at.tap("indexer_gate", gate)
    weights = at.tap("indexer_weights", weights * np.float32(1 / np.sqrt(spec.head_dim * spec.n_head)))
    place = at["indexer_compressor_ape.weight"].f32()

    def of(share: Share) -> Mask | None:
        rows = share.rows
        keys = share.cache.append(at.index, "index_k", k[rows]).astype(np.float32, copy=False)
        gates = share.cache.append(at.index, "index_gate", gate[rows]).astype(np.float32, copy=False)
        if keys.shape[0] // spec.pool <= spec.top_k and not at.p.tracing:
            return None
        pooled = at.tap("indexer_pool_k", pooled_keys(keys, gates, place))
        ended = np.asarray(complete(share.positions, spec.pool, pooled.shape[0]), like=pooled)
        scores = np.where(ended, index_scores(q[rows], pooled, weights[rows]), np.float32(-np.inf))
        scores = at.tap("indexer_score", scores)
        return with_tail(highest(scores, spec.top_k), share.positions, spec.pool, keys.shape[0])

    return {share.rows.start: of(share) for share in at.p.shares}


def choose_means(x: F32, spec: MeanIndexSpec, rope: RopeSpec | None, at: Site) -> Chosen:
    """Blocks by their mean key, for all heads alike: x (T, D) -> for each sequence (1, rows, S) bool."""
    q, k = at.ops.linears(x, [at.map("indexer.q_proj"), at.map("indexer.k_proj")])
    q = at.norm(q.reshape(x.shape[0], spec.n_head, spec.head_dim), spec.q_norm)
    if rope is not None:
        q = at.ops.rope(q, *at.p.ropes[rope], rope.pairing)
    q, k = at.tap("indexer_q", q), at.tap("indexer_k_raw", k)

    def of(share: Share) -> Mask | None:
        keys = share.cache.append(at.index, "index_k", k[share.rows]).astype(np.float32, copy=False)
        n = spec.top_k + spec.block - 1
        if keys.shape[0] <= n and not at.p.tracing:
            return None
        means = at.tap("indexer_k", block_keys(keys, spec, rope, at))
        scores = at.tap(
            "indexer_score",
            index_scores(q[share.rows], means, np.asarray(np.ones(q[share.rows].shape[:2], np.float32), like=q)),
        )
        return highest(token_scores(scores, share.positions, spec.block, keys.shape[0]), n)[None]

    return {share.rows.start: of(share) for share in at.p.shares}


def block_keys(keys: F32, spec: MeanIndexSpec, rope: RopeSpec | None, at: Site) -> F32:
    """The key of each complete block, at the position of its first token on every axis: (S, Hd) -> (blocks, Hd)."""
    means = at.norm(at.tap("indexer_k_pooled", block_means(keys, spec.block)), spec.k_norm)
    if rope is None:
        return means
    cos, sin = at.lifted(rope_table(replace(rope, sections=None), np.arange(means.shape[0]) * spec.block))
    return at.ops.rope(means[:, None], cos, sin, rope.pairing)[:, 0]
