"""Which of the remembered tokens each new one attends to, in layers that choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.blocks.site import Share, Site
from ref_engine.reference.attention import causal_mask
from ref_engine.reference.hadamard import hadamard
from ref_engine.reference.indexer import Mask, highest_blocks, index_scores, marked, ranked
from ref_engine.reference.rope import rope_last
from ref_engine.reference.sums import F32
from ref_engine.spec import RopeSpec
from ref_engine.spec.indexer import BlockIndexSpec, IndexerSpec

Chosen = Mapping[int, Mask | None]  # by the first row of each sequence's share; None: all that are visible
Tap = Callable[[str, NDArray[Any]], NDArray[Any]]
NONE_CHOSEN: Chosen = MappingProxyType({})


def choose(x: F32, low: F32, spec: IndexerSpec, rope: RopeSpec, at: Site) -> Chosen:
    """The lightning indexer: x (T, D), low-rank queries (T, R) -> for each sequence (rows, S) bool."""
    cos, sin = at.p.ropes[rope]
    q = at.linear(low, "indexer.attn_q_b").reshape(x.shape[0], spec.n_head, spec.head_dim)
    k, weights = at.ops.linears(x, [at.map("indexer.attn_k"), at.map("indexer.proj")])
    k = at.norm(k, spec.k_norm)
    turn = rope_last if spec.turn_last else at.ops.rope
    q, k = turn(q, cos, sin, spec.pairing), turn(k[:, None], cos, sin, spec.pairing)[:, 0]
    q, k = (hadamard(q), hadamard(k)) if spec.spread else (q, k)
    q, k = at.tap("indexer_q", q), at.tap("indexer_k", k)
    weights = at.tap("indexer_weights", weights * np.float32(1 / np.sqrt(spec.head_dim * spec.n_head)))

    def of(share: Share) -> Mask | None:
        keys = share.cache.append(at.index, "index_k", k[share.rows]).astype(np.float32, copy=False)
        if keys.shape[0] <= spec.top_k and not at.p.tracing:
            return None
        visible = np.asarray(causal_mask(share.positions, keys.shape[0], None), like=q)
        scores = index_scores(q[share.rows], keys, weights[share.rows])
        scores = at.tap("indexer_score", np.where(visible, scores, np.float32(-np.inf)))
        look: Tap = at.tap
        return marked(look("top_k", ranked(scores, visible, spec.top_k)), visible)

    return {share.rows.start: of(share) for share in at.p.shares}


def choose_blocks(x: F32, spec: BlockIndexSpec, rope: RopeSpec | None, at: Site) -> Chosen:
    """Blocks for each group of heads: x (T, D) -> for each sequence (spec.n_head, rows, S) bool."""
    q, k = at.ops.linears(x, [at.map("indexer.q_proj"), at.map("indexer.k_proj")])
    q = at.norm(q.reshape(x.shape[0], spec.n_head, spec.head_dim), spec.q_norm)
    k = at.norm(k[:, None], spec.k_norm)
    if rope is not None:
        cos, sin = at.p.ropes[rope]
        q, k = (at.ops.rope(part, cos, sin, rope.pairing) for part in (q, k))

    def of(share: Share) -> Mask | None:
        keys = share.cache.append(at.index, "index_k", k[share.rows, 0]).astype(np.float32, copy=False)
        if keys.shape[0] <= spec.top_k * spec.block:
            return None
        visible = np.asarray(causal_mask(share.positions, keys.shape[0], None), like=q)
        return highest_blocks(
            q[share.rows], keys, visible, share.positions, block=spec.block, n=spec.top_k, local=spec.local
        )

    return {share.rows.start: of(share) for share in at.p.shares}
