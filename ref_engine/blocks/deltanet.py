"""A gated delta net in the place of attention."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.site import Share, Site
from ref_engine.reference.elementary import softplus
from ref_engine.reference.norm import l2_norm
from ref_engine.reference.sums import F32
from ref_engine.spec import DeltaNetSpec


def delta_net(x: F32, a: DeltaNetSpec, at: Site) -> F32:
    """(T, D) -> (T, D): project and convolve, correct the memory, read it, norm and gate, project back."""
    n = x.shape[0]
    qkv, z = projections(x, a, at)
    beta, alpha = corrections_and_decays(x, a, at)
    decay = at.tap("gate", at["ssm_a"].f32() * at.tap("a_softplus", softplus(alpha + at["ssm_dt.bias"].f32())))
    q, k, v = convolved(qkv, a, at)
    q, k = at.tap("q_conv_predelta", spread(l2_norm(q, a.l2_eps), a)), spread(l2_norm(k, a.l2_eps), a)

    def run(share: Share) -> F32:
        rows = share.rows
        state = share.cache.state(at.index, "delta")
        y, state = at.ops.gated_delta_rule(q[rows], k[rows], v[rows], decay[rows, :, None], beta[rows], state)
        share.cache.set_state(at.index, "delta", state)
        return y

    y = at.norm(at.tap("attn_output", at.p.each(run)), a.norm).reshape(n, -1)
    y = at.tap("final_output", y * at.ops.activation(z.reshape(n, -1), a.gate_by))
    return at.tap("linear_attn_out", at.linear(y, "ssm_out"))


def projections(x: F32, a: DeltaNetSpec, at: Site) -> tuple[F32, F32]:
    """(T, D) -> queries, keys and values side by side (T, (2K + H) Hd), and gates (T, H Hd)."""
    if not a.mixed:
        qkv, z = at.linears(x, ["attn_qkv", "attn_gate"])
        return at.tap("linear_attn_qkv_mixed", qkv), at.tap("z", z)
    n, values = x.shape[0], a.value_width // a.n_head_kv
    by_key_head = at.tap("linear_attn_mixed_qkvz", at.linear(x, "ssm_in")).reshape(n, a.n_head_kv, -1)
    ends = np.cumsum([a.head_dim, a.head_dim, values])
    q, k, v, z = (part.reshape(n, -1) for part in np.split(by_key_head, ends, axis=-1))
    return at.tap("qkv_mixed", np.concatenate([q, k, v], axis=-1)), at.tap("z", z)


def corrections_and_decays(x: F32, a: DeltaNetSpec, at: Site) -> tuple[F32, F32]:
    """(T, D) -> beta (T, H), and what the decays are made of (T, H)."""
    if a.paired:
        by_key_head = at.tap("linear_attn_mixed_ba", at.linear(x, "ssm_ba")).reshape(x.shape[0], a.n_head_kv, -1)
        beta, alpha = (part.reshape(x.shape[0], -1) for part in np.split(by_key_head, 2, axis=-1))
    else:
        beta, alpha = at.linears(x, ["ssm_beta", "ssm_alpha"])
    return at.tap("beta_sigmoid", at.ops.activation(beta, "sigmoid")), at.tap("alpha", alpha)


def convolved(qkv: F32, a: DeltaNetSpec, at: Site) -> tuple[F32, F32, F32]:
    """(T, (2K + H) Hd) -> queries and keys (T, K, Hd), values (T, H, Hd)."""
    weight = at["ssm_conv1d.weight"].f32()

    def run(share: Share) -> F32:
        y, before = at.ops.causal_conv(qkv[share.rows], share.cache.state(at.index, "conv"), weight)
        share.cache.set_state(at.index, "conv", before)
        return y

    y = at.tap("conv_output_silu", at.ops.activation(at.tap("conv_output_raw", at.p.each(run)), "silu"))
    q, k, v = np.split(y, [a.key_width, 2 * a.key_width], axis=-1)
    q, k, v = (part.reshape(y.shape[0], -1, a.head_dim) for part in (q, k, v))
    return at.tap("q_conv", q), at.tap("k_conv", k), at.tap("v_conv", v)


def spread(x: F32, a: DeltaNetSpec) -> F32:
    """The query or key that each head reads with: (T, K, Hd) -> (T, H, Hd)."""
    times = a.n_head // a.n_head_kv
    return np.tile(x, (1, times, 1)) if a.tiled else np.repeat(x, times, axis=1)
