"""State-space models with a choice of what to keep: the recurrence of Mamba 1 and 2."""

from __future__ import annotations

import numpy as np

from ref_engine.reference.elementary import exp
from ref_engine.reference.sums import F32, lane_dot


def ssm_scan(x: F32, dt: F32, a: F32, b: F32, c: F32, state: F32) -> tuple[F32, F32]:
    """For each head and token: h = e**(dt A) h + (dt x) B^T; y = h C (ggml_ssm_scan).

    Mamba (Gu & Dao 2023): each channel is a head of width 1 with a decay for each number of its state, a: (H, N).
    Mamba 2 (Dao & Gu 2024): one decay for each head, a: (H, 1). Both with a < 0.

    x: (T, H, P); dt: (T, H), more than 0; b, c: (T, G, N), group g for the heads g H/G up to (g + 1) H/G; state before
    the first token: (N, H, P). Returns y (T, H, P) and the state after the last token, both fresh arrays.
    """
    groups = b.shape[1]
    grouped = (groups, x.shape[1] // groups)
    h = state.reshape(-1, *grouped, x.shape[2]).copy()
    y = np.empty(x.shape, np.float32, like=x)
    b, c = (part.transpose(0, 2, 1)[..., None, None] for part in (b, c))  # (T, N, G, 1, 1)
    for t in range(x.shape[0]):
        kept = exp(dt[t] * a.T).reshape(-1, *grouped, 1)
        h *= kept
        h += b[t] * (x[t] * dt[t, :, None]).reshape(*grouped, -1)
        y[t] = lane_dot(h, c[t]).reshape(x.shape[1:])
    return y, h.reshape(state.shape)
