"""Kimi delta attention: a gated delta rule in the place of attention."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.site import Share, Site
from ref_engine.reference.elementary import sigmoid, softplus
from ref_engine.reference.norm import l2_norm
from ref_engine.reference.sums import F32
from ref_engine.spec import KdaSpec


def kda(x: F32, a: KdaSpec, at: Site) -> F32:
    """(T, D) -> (T, D): project and convolve, correct the memory, read it, norm and gate, project back."""
    q, k, v = convolved(x, a, at)
    decay = at.tap("kda_g1", log_decay(x, a, at))
    beta = at.tap("kda_beta", at.ops.activation(at.linear(x, "ssm_beta"), "sigmoid"))
    q, k = l2_norm(q, a.l2_eps), l2_norm(k, a.l2_eps)

    def run(share: Share) -> F32:
        rows = share.rows
        state = share.cache.state(at.index, "delta")
        y, state = at.ops.gated_delta_rule(q[rows], k[rows], v[rows], decay[rows], beta[rows], state)
        share.cache.set_state(at.index, "delta", state)
        return y

    y = at.tap("kda_scan_out", at.p.each(run))
    y = at.tap("kda_normed", at.norm(y, a.norm))
    gate = at.tap("kda_g2", heads(chain(x, a.gate, at), a))
    return at.tap("kda_out", at.linear((y * at.ops.activation(gate, "sigmoid")).reshape(x.shape[0], -1), "attn_output"))


def convolved(x: F32, a: KdaSpec, at: Site) -> tuple[F32, F32, F32]:
    """(T, D) -> queries, keys and values, each (T, H, Hd)."""
    if a.fused:
        qkv = at.ops.linear(x, at["attn_qkv.weight"])
    else:
        names = ("attn_q", "attn_k", "attn_v")
        qkv = np.concatenate(at.ops.linears(x, [(at[f"{name}.weight"], None) for name in names]), axis=-1)
    weight = np.concatenate([at[f"ssm_conv1d_{name}.weight"].f32()[:, 0] for name in "qkv"])

    def run(share: Share) -> F32:
        y, before = at.ops.causal_conv(qkv[share.rows], share.cache.state(at.index, "conv"), weight)
        share.cache.set_state(at.index, "conv", before)
        return y

    q, k, v = np.split(at.ops.activation(at.p.each(run), "silu"), 3, axis=-1)
    q, k, v = (at.tap(f"kda_{name}_conv", heads(part, a)) for name, part in (("q", q), ("k", k), ("v", v)))
    return q, k, v


def log_decay(x: F32, a: KdaSpec, at: Site) -> F32:
    """(T, D) -> (T, H, Hd), all at most 0."""
    f = heads(chain(x, a.decay, at) + at["ssm_dt.bias"].f32(), a)
    minus_a = (at["ssm_a"].f32() if a.negated else -at["ssm_a"].f32()).reshape(-1, 1)
    return minus_a * softplus(f) if a.bound is None else np.float32(a.bound) * sigmoid(-(f * minus_a))


def chain(x: F32, names: tuple[str, ...], at: Site) -> F32:
    for name in names:
        x = at.linear(x, name)
    return x


def heads(x: F32, a: KdaSpec) -> F32:
    """(T, H * Hd) -> (T, H, Hd)"""
    return x.reshape(x.shape[0], a.n_head, a.head_dim)
