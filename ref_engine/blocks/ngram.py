"""Embeddings of the last few tokens together, added to the residual streams."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.site import Share, Site
from ref_engine.reference.ngram import gates, latest, table_rows
from ref_engine.reference.sums import F32
from ref_engine.spec.ngram import TABLE, NgramSpec


def with_ngrams(x: F32, s: NgramSpec, at: Site) -> F32:
    """(T, N, D) -> (T, N, D)"""
    key, value = at.ops.linears(looked_up(s, at), [at.map("ple_key"), at.map("ple_value")])
    gate = at.tap("ple_gate", gates(normed(key.reshape(x.shape), "key", s, at), normed(x, "query", s, at)))
    gated = at.tap("ple_gated_value", value[:, None] * gate[..., None])
    flat = np.ascontiguousarray(normed(gated, "conv", s, at), like=x).reshape(x.shape[0], -1)
    weight = at["ple_conv1d.weight"].f32()

    def run(share: Share) -> F32:
        y, before = at.ops.causal_conv(flat[share.rows], share.cache.state(at.index, "ngram"), weight, s.size)
        share.cache.set_state(at.index, "ngram", before)
        return y

    convolved = at.tap("ple_conv_out", at.ops.activation(at.p.each(run), "silu").reshape(x.shape))
    return x + (gated + convolved)


def looked_up(s: NgramSpec, at: Site) -> F32:
    """The rows of the table for each token, one behind another: (T, heads * width)."""
    grams = []
    for share in at.p.shares:
        done = share.cache.n_done
        before = np.array(share.cache.tokens[max(0, done - s.size + 1) : done], np.int64)
        ids = at.p.ids[share.rows]
        grams.append(latest(np.concatenate([before, ids]), ids.size, s.size, s.eos))
    rows = table_rows(np.concatenate(grams), s)
    y = at.ops.embed(rows.reshape(-1), at.weights[TABLE])
    return at.p.tap("ple_embd", None, y.reshape(rows.shape[0], -1))


def normed(x: F32, name: str, s: NgramSpec, at: Site) -> F32:
    """Each stream normalised, with weights of its own: (T, N, D) -> (T, N, D)."""
    return at.ops.rms_norm(x, None, s.eps) * at[f"ple_norm_{name}.weight"].f32()
