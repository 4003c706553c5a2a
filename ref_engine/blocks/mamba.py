"""Mamba 1 and 2 in the place of attention."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.site import Share, Site
from ref_engine.reference.elementary import softplus
from ref_engine.reference.sums import F32
from ref_engine.spec import Mamba2Spec, MambaSpec


def mamba(x: F32, s: MambaSpec, at: Site) -> F32:
    """(T, D) -> (T, D): project, convolve, choose steps, B and C, scan, gate, project back."""
    xz = at.linear(x, "ssm_in")
    if s.n_head is None:
        x, z = np.split(xz, 2, axis=-1)
    else:  # of each head first the gate, then the input
        z, x = (
            part.reshape(x.shape[0], s.inner) for part in np.split(xz.reshape(x.shape[0], s.n_head, -1), 2, axis=-1)
        )
    z, x = at.tap("mamba_z_split", z), at.tap("mamba_x_split", x)
    x = at.tap("mamba_conv1d_silu", convolved(x, at))
    dt, b, c = selection(x, s, at)
    x = x.reshape(x.shape[0], s.heads, -1)
    a = at["ssm_a"].f32().reshape(s.heads, -1)
    y = scan(x, dt, a, b[:, None], c[:, None], at)
    y = at.tap("mamba_y_add_d", y + x * at["ssm_d"].f32()[:, None])
    y = at.tap("mamba_y_swiglu_z", at.ops.glu(z, y.reshape(z.shape), "silu"))
    return at.tap("mamba_out", at.linear(y, "ssm_out"))


def selection(x: F32, s: MambaSpec, at: Site) -> tuple[F32, F32, F32]:
    """(T, inner) -> steps (T, H), B and C (T, N)."""
    y, n = at.linear(x, "ssm_x"), s.state
    if s.n_head is None:
        dt, b, c = np.split(y, [s.rank, s.rank + n], axis=-1)
    else:
        b, c, dt = np.split(y, [n, 2 * n], axis=-1)
    dt, b, c = at.norm(dt, s.dt_norm), at.norm(b, s.b_norm), at.norm(c, s.c_norm)
    return softplus(at.tap("mamba_dt_proj", at.linear(dt, "ssm_dt"))), b, c


def mamba2(x: F32, s: Mamba2Spec, at: Site) -> F32:
    """(T, D) -> (T, D): project to gate, input, B, C and steps, convolve, scan, gate, norm, project back."""
    n, width = x.shape[0], s.groups * s.state
    z, xbc, dt = np.split(at.linear(x, "ssm_in"), [s.inner, s.inner + s.conv_width], axis=-1)
    x, b, c = np.split(convolved(xbc, at), [s.inner, s.inner + width], axis=-1)
    x = x.reshape(n, s.n_head, -1)
    dt = softplus(dt + at["ssm_dt.bias"].f32())
    y = scan(x, dt, at["ssm_a"].f32(), b.reshape(n, s.groups, -1), c.reshape(n, s.groups, -1), at)
    y = at.tap("mamba2_y_add_d", y + x * at["ssm_d"].f32())
    y = at.ops.glu(z, y.reshape(z.shape), "silu")
    y = at.norm(y.reshape(n, s.groups, -1), s.norm).reshape(z.shape)
    return at.tap("mamba_out", at.linear(y, "ssm_out"))


def convolved(x: F32, at: Site) -> F32:
    """silu(convolution over time + bias): (T, C) -> (T, C)."""
    weight, bias = at["ssm_conv1d.weight"].f32(), at.vector("ssm_conv1d.bias")

    def run(share: Share) -> F32:
        y, before = at.ops.causal_conv(x[share.rows], share.cache.state(at.index, "conv"), weight)
        share.cache.set_state(at.index, "conv", before)
        return y

    y = at.p.each(run)
    return at.ops.activation(y if bias is None else y + bias, "silu")


def scan(x: F32, dt: F32, a: F32, b: F32, c: F32, at: Site) -> F32:
    """As ssm_scan, each sequence with its own state: (T, H, P) -> (T, H, P)."""

    def run(share: Share) -> F32:
        rows = share.rows
        y, state = at.ops.ssm_scan(x[rows], dt[rows], a, b[rows], c[rows], share.cache.state(at.index, "ssm"))
        share.cache.set_state(at.index, "ssm", state)
        return y

    return at.p.each(run)
