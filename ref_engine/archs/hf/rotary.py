"""Tensors of rotary factors that come from the configuration, and the order of rotated rows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ref_engine.checkpoint import Array, Config, Tensor, given
from ref_engine.errors import ConvertError


def interleaved(tensor: Tensor, n_heads: int) -> Tensor:
    """Rows of halves (as transformers rotates them) to rows of pairs (as Llama's graph does), head by head."""
    tensor.expect_axes(1, 2)
    rows = tensor.shape[0]
    if n_heads < 1 or rows % (2 * n_heads):
        raise ConvertError(f"tensor {tensor.name} of {rows} rows does not hold {n_heads} heads of pairs")

    def turned(x: Array) -> Array:
        return x.reshape(n_heads, 2, rows // n_heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)

    return tensor.remade(tensor.shape, turned)


def llama3_factors(config: Config, default_factor: float = 8.0) -> Iterable[tuple[str, Tensor]]:
    """rope_freqs.weight (half a head,) where rope_type is llama3: what each frequency is divided by.

    Source: `_compute_llama3_parameters` of transformers; in float32, as llama.cpp's converter computes it.
    """
    rope = config.rope
    if str(rope.get("rope_type", "")).lower() != "llama3":
        return
    base, width = rope.number("rope_theta", default=10000.0), config.head_width
    factor = rope.number("factor", default=default_factor)
    low, high = rope.number("low_freq_factor", default=1.0), rope.number("high_freq_factor", default=4.0)
    context = rope.number("original_max_position_embeddings", default=8192.0)
    if min(base, low, high, context, factor) <= 0 or low == high:
        raise ConvertError(f"{rope.where}: factors of llama3 scaling must be positive, and low and high ones differ")
    frequencies = (1 / np.float32(base) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))).astype("f4")
    length = np.float32(2 * math.pi) / frequencies
    smooth = (np.float32(context) / length - np.float32(low)) / np.float32(high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(length < context / high, np.float32(1), np.where(length > context / low, factor, between))
    yield "rope_freqs.weight", given("rope_freqs.weight", factors)


def long_factors(config: Config, width: int) -> Iterable[tuple[str, Tensor]]:
    """rope_factors_long and rope_factors_short of LongRoPE for `width` rotated dimensions."""
    rope = config.inner("rope_parameters")
    if not rope.get("long_factor") and not rope.get("short_factor"):
        return
    for kind in ("long", "short"):
        values = rope.list_of(f"{kind}_factor", int | float, width // 2)  # type: ignore[arg-type]
        yield f"rope_factors_{kind}.weight", given(f"rope_factors_{kind}.weight", np.array(values, np.float32))
