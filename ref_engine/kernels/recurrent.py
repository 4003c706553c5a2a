"""Recurrences and what lies around them, over the kernels of one instruction set: as those of `reference/`."""

from __future__ import annotations

import numpy as np

from ref_engine.compat import native
from ref_engine.kernels.ops import Kernels, as_f32
from ref_engine.reference import ffn, ssm
from ref_engine.reference.sums import F32

_COLUMNS = 16  # that pass through the tokens together, in one group


def activation(kernels: Kernels, x: F32, name: str) -> F32:
    """As reference activation, which runs for those that have no kernel."""
    if name not in native.ALONE_KINDS:
        return ffn.activation(x, name)
    x = as_f32(x)
    y: F32 = np.empty(x.shape, np.float32)
    native.activate(kernels.table, name, x.reshape(-1), y.reshape(-1), kernels.n_threads)
    return y


def causal_conv(kernels: Kernels, x: F32, before: F32, weight: F32, step: int = 1) -> tuple[F32, F32]:
    """As reference causal_conv."""
    x, before = as_f32(x), as_f32(before)
    y: F32 = np.empty(x.shape, np.float32)
    native.causal_conv(kernels.table, x, before, as_f32(weight.T), step, y, kernels.n_threads)
    kept = len(before)
    after = x[len(x) - kept :].copy() if len(x) >= kept else np.concatenate([before[len(x) :], x])
    return y, after


def gated_delta_rule(kernels: Kernels, q: F32, k: F32, v: F32, decay: F32, beta: F32, state: F32) -> tuple[F32, F32]:
    """As reference gated_delta_rule."""
    out: F32 = np.empty(v.shape, np.float32)
    after: F32 = np.empty(state.shape, np.float32)
    q, k, v, decay, beta, state = (as_f32(x) for x in (q, k, v, decay, beta, state))
    native.gated_delta_rule(kernels.table, q, k, v, decay, beta, state, after, out, kernels.n_threads)
    return out, after


def ssm_scan(kernels: Kernels, x: F32, dt: F32, a: F32, b: F32, c: F32, state: F32) -> tuple[F32, F32]:
    """As reference ssm_scan, which runs where groups are not whole sets of sixteen features."""
    groups = b.shape[1]
    if groups > 1 and x.shape[1] // groups * x.shape[2] % _COLUMNS:
        return ssm.ssm_scan(x, dt, a, b, c, state)
    out: F32 = np.empty(x.shape, np.float32)
    after: F32 = np.empty(state.shape, np.float32)
    x, dt, a, b, c, state = (as_f32(part) for part in (x, dt, a, b, c, state))
    native.ssm_scan(kernels.table, x, dt, a, b, c, state, after, out, kernels.n_threads)
    return out, after
