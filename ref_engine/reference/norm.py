"""Normalisation."""

from __future__ import annotations

import numpy as np

from ref_engine.reference.sums import F32, lane_sum


def rms_norm(x: F32, weight: F32 | None, eps: float) -> F32:
    """x / sqrt(mean(x**2) + eps) * weight over the last axis (Zhang & Sennrich 2019; ggml_rms_norm).

    x: (..., D) float32, weight: (D,) float32 or None, eps: added to the mean square. Returns (..., D) float32.
    """
    mean = lane_sum(x * x) / np.float32(x.shape[-1])
    y: F32 = x * (np.float32(1) / np.sqrt(mean + np.float32(eps)))[..., None]
    return y if weight is None else y * weight


def rms_norm_exact(x: F32, weight: F32 | None, eps: float) -> F32:
    """As `rms_norm`, with the mean in float64."""
    mean = np.mean(x.astype(np.float64) ** 2, axis=-1, keepdims=True)
    y: F32 = (x / np.sqrt(mean + np.float32(eps))).astype(np.float32)
    return y if weight is None else y * weight


def layer_norm(x: F32, weight: F32 | None, bias: F32 | None, eps: float) -> F32:
    """(x - mean(x)) / sqrt(mean((x - mean(x))**2) + eps) * weight + bias over the last axis.

    Ba et al. 2016; ggml_norm. x: (..., D) float32; weight, bias: (D,) float32 or None. Returns (..., D) float32.
    """
    centred: F32 = x - (lane_sum(x) / np.float32(x.shape[-1]))[..., None]
    variance = lane_sum(centred * centred) / np.float32(x.shape[-1])
    y: F32 = centred * (np.float32(1) / np.sqrt(variance + np.float32(eps)))[..., None]
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def l2_norm(x: F32, eps: float) -> F32:
    """x / sqrt(sum(x**2) + eps) over the last axis: (..., D) -> (..., D)."""
    y: F32 = x * (np.float32(1) / np.sqrt(lane_sum(x * x) + np.float32(eps)))[..., None]
    return y
