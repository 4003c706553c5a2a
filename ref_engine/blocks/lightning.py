"""Lightning attention: linear attention with a decay."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.site import Share, Site
from ref_engine.reference.sums import F32
from ref_engine.spec import LightningSpec


def lightning(x: F32, a: LightningSpec, at: Site) -> F32:
    """(T, D) -> (T, D): o = q S with S = e**-slope S + k^T v, which is the recurrence of Mamba 2 with steps of 1."""
    n = x.shape[0]
    qkv = at.tap("QKVcur_silu", at.ops.activation(at.tap("QKVcur", at.linear(x, "attn_qkv")), "silu"))
    q, k, v = np.split(qkv.reshape(n, a.n_head, 3 * a.head_dim), 3, axis=-1)
    q, k, v = at.tap("Qcur", q), at.tap("Kcur", k), at.tap("Vcur", v)
    steps = np.asarray(np.ones((n, a.n_head), np.float32), like=q)
    decay = -np.array(a.slopes, np.float32, like=q)[:, None]

    def run(share: Share) -> F32:
        rows = share.rows
        y, state = at.ops.ssm_scan(v[rows], steps[rows], decay, k[rows], q[rows], share.cache.state(at.index, "kv"))
        share.cache.set_state(at.index, "kv", state)
        return y

    y = at.tap("qkv_permuted", at.p.each(run)).reshape(n, -1)
    y = at.tap("qkv_norm", at.norm(y, a.norm))
    return at.linear(y * at.tap("g_sigm", at.ops.activation(at.linear(x, "attn_gate"), "sigmoid")), "attn_output")
