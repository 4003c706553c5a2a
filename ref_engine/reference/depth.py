"""Attention to the residual streams of earlier layers (Moonshot 2026, "Attention Residuals")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ref_engine.reference.attention import soft_max
from ref_engine.reference.norm import rms_norm
from ref_engine.reference.sums import F32, lane_sum


def depth_weights(streams: Sequence[F32], score: F32, eps: float) -> F32:
    """softmax over the streams s of score . (s / rms(s)): each s (T, D), score (D,) -> (T, n)."""
    scores = np.stack([lane_sum(rms_norm(s, None, eps) * score) for s in streams], axis=-1)
    weights: F32 = soft_max(scores[None], np.asarray(np.ones(scores.shape, np.bool_), like=scores), 1.0)[0]
    return weights


def weighted_sum(streams: Sequence[F32], weights: F32) -> F32:
    """The weighted sum of the streams, one after the other: each (T, D), weights (T, n) -> (T, D)."""
    total = streams[0] * weights[:, :1]
    for i, s in enumerate(streams[1:], 1):
        total = total + s * weights[:, i, None]
    return total
