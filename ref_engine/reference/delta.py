"""The gated delta rule: a memory that is corrected towards each new value instead of piling values up."""

from __future__ import annotations

import numpy as np

from ref_engine.reference.elementary import exp
from ref_engine.reference.sums import F32, lane_dot


def gated_delta_rule(q: F32, k: F32, v: F32, decay: F32, beta: F32, state: F32) -> tuple[F32, F32]:
    """For each head and token: S = diag(e**decay) S; S = S + beta k (v - S^T k)^T; o = S^T q / sqrt(Hd).

    Gated DeltaNet (Yang et al. 2024, one decay for each head) and Kimi delta attention (Moonshot 2025, one for each
    feature of the keys); ggml_gated_delta_net. A decay is the logarithm of what is kept, so at most 0.

    q, k: (T, H, Hd); v: (T, H, Vd); decay: (T, H, 1) or (T, H, Hd); beta: (T, H); state: S of all heads before the
    first token, (Hd, H, Vd). Returns o (T, H, Vd) and the state after the last token, both fresh arrays.
    """
    kept = exp(decay).transpose(0, 2, 1)[..., None]  # (T, Hd or 1, H, 1), as q and k
    q, k = (part.transpose(0, 2, 1)[..., None] for part in (q, k))
    scale = np.float32(1) / np.sqrt(np.float32(q.shape[1]))
    out, s = np.empty_like(v), state.copy()
    for t in range(v.shape[0]):
        s *= kept[t]
        s += k[t] * ((v[t] - lane_dot(s, k[t])) * beta[t, :, None])
        out[t] = lane_dot(s, q[t]) * scale
    return out, s
