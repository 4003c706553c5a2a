"""Convolution over time, one filter for each channel."""

from __future__ import annotations

import numpy as np

from ref_engine.reference.sums import F32


def causal_conv(x: F32, before: F32, weight: F32, step: int = 1) -> tuple[F32, F32]:
    """y[t, c] = sum over w of weight[c, w] * x[t - (W - 1 - w) * step, c], w upwards (ggml_ssm_conv for step 1).

    x: (T, C), before: the (W - 1) * step rows before them, weight: (C, W).
    Returns y (T, C) and the (W - 1) * step rows before the next token, both fresh arrays.
    """
    n, width = x.shape[0], weight.shape[1]
    rows = np.concatenate([before, x])
    y: F32 = np.zeros_like(x)
    for w in range(width):
        y += rows[w * step : w * step + n] * weight[:, w]
    return y, rows[n:].copy()


def centred_conv(x: F32, weight: F32) -> F32:
    """y[t, c] = sum over w of weight[c, w] * x[t - (W - 1) / 2 + w, c], with zeros around x; W is odd.

    x: (T, C), a whole sequence; weight: (C, W). Returns (T, C).
    """
    width = weight.shape[1]
    after = width // 2
    padded = np.concatenate([x, np.zeros((after, x.shape[1]), np.float32, like=x)])
    return causal_conv(padded, np.zeros((width - 1, x.shape[1]), np.float32, like=x), weight)[0][after:]
