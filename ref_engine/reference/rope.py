"""Rotary position embedding (Su et al. 2021) and its ways of reaching further: linear, YaRN, frequency factors.

A pair of features (x0, x1) at position p is turned by the angle p * frequency:

    y0 = x0 cos - x1 sin,    y1 = x0 sin + x1 cos

The angles are computed once for all layers, in float64, and their cosines and sines rounded to float32: one table for
all backends. (llama.cpp multiplies its angles up in float32; at position 100,000 that is off by some 1e-2 radians.)
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ref_engine.place import joined
from ref_engine.reference.sums import F32
from ref_engine.spec import Pairing, RopeSpec

F64 = NDArray[np.float64]


def yarn_ramp(rope: RopeSpec) -> F64:
    """Share of extrapolation for each frequency, (n_rot / 2,): 1 for fast ones, 0 for slow ones.

    Peng et al. 2023, "YaRN"; ggml_rope_yarn_corr_dims. A frequency that turns more than `beta_fast` times within the
    original context keeps its angle, one that turns less than `beta_slow` times is interpolated.
    """

    def turns(n: float) -> float:
        return rope.n_rot * math.log(rope.n_ctx_orig / (n * 2 * math.pi)) / (2 * math.log(rope.base))

    low = max(0.0, math.floor(turns(rope.beta_fast)))
    high = min(rope.n_rot - 1.0, math.ceil(turns(rope.beta_slow)))
    i = np.arange(rope.n_rot // 2)
    slow: F64 = np.clip((i - low) / max(0.001, high - low), 0, 1)
    return 1 - slow


def rope_table(rope: RopeSpec, positions: NDArray[np.int64], factors: F32 | None = None) -> tuple[F32, F32]:
    """Cosines and sines, each (T, n_rot / 2) float32, times the magnitude that the scaling asks for.

    positions: (T,) absolute; factors: (n_rot / 2,) divisors of the frequencies (Llama 3, longrope) or None.
    """
    frequency = rope.base ** (-np.arange(0, rope.n_rot, 2, dtype=np.float64) / rope.n_rot)
    if factors is not None:
        frequency = frequency / factors.astype(np.float64)
    keep = rope.ext_factor * yarn_ramp(rope) if rope.ext_factor else 0.0
    frequency = frequency * (rope.freq_scale * (1 - keep) + keep)
    angle = positions[:, None] * frequency
    if rope.sections is not None:
        angle = np.where(still_pairs(rope.n_rot // 2, rope.sections, rope.interleaved), 0, angle)
    return (
        (np.cos(angle) * rope.magnitude).astype(np.float32),
        (np.sin(angle) * rope.magnitude).astype(np.float32),
    )


def still_pairs(n: int, sections: tuple[int, int, int, int], interleaved: bool) -> NDArray[np.bool_]:
    """Which of n pairs follow the fourth axis of M-RoPE, whose position is zero in text: (n,) bool.

    Wang et al. 2024, "Qwen2-VL"; ggml_mrope_cache_init. The other axes (time, height, width) all have a text token's
    position. The sections repeat where a head has more pairs than they count.
    """
    pair = np.arange(n) % sum(sections)
    still: NDArray[np.bool_] = pair >= sum(sections[:3])
    if not interleaved:
        return still
    turned = np.array([[3 * sections[0]], [3 * sections[1]], [3 * sections[2]]])[pair % 3, 0]
    still = pair >= turned
    return still


def rope(x: F32, cos: F32, sin: F32, pairing: Pairing) -> F32:
    """Turn the first n_rot features of each head; the rest pass through (ggml_rope_ext).

    x: (T, H, Hd) float32; cos, sin: (T, n_rot / 2). pairing "adjacent": features (0, 1), (2, 3), ... belong together
    (Llama files); "halves": feature i and i + n_rot / 2 (GPT-NeoX; most other families).
    """
    half = cos.shape[-1]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    c, s = cos[:, None, :], sin[:, None, :]
    y = np.empty_like(turned)
    if pairing == "adjacent":
        a, b = turned[..., 0::2], turned[..., 1::2]
        y[..., 0::2] = a * c - b * s
        y[..., 1::2] = a * s + b * c
    else:
        a, b = turned[..., :half], turned[..., half:]
        y[..., :half] = a * c - b * s
        y[..., half:] = a * s + b * c
    return joined(y, rest) if rest.shape[-1] else y


def rope_last(x: F32, cos: F32, sin: F32, pairing: Pairing) -> F32:
    """Turn the last n_rot features of each head; those before them pass through (ggml_rope_set_offset)."""
    still = x.shape[-1] - 2 * cos.shape[-1]
    return joined(x[..., :still], rope(x[..., still:], cos, sin, pairing))
