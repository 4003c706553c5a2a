"""Types that hold one number per weight: F32, F16, BF16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32


def bf16_to_f32(x: NDArray[np.uint16]) -> F32:
    """bfloat16 is the upper half of a float32."""
    return (x.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(x: F32) -> NDArray[np.uint16]:
    """Round to nearest, ties to even; NaNs stay quiet NaNs (ggml_compute_fp32_to_bf16)."""
    u = x.view(np.uint32)
    rounded = (u + (0x7FFF + (u >> 16 & 1))) >> 16
    quiet = u >> 16 | 64
    return np.where(np.isnan(x), quiet, rounded).astype(np.uint16)


def f16_to_f32(x: NDArray[np.float16]) -> F32:
    return x.astype(np.float32)


def f32_to_f16(x: F32) -> NDArray[np.float16]:
    """Round to nearest, ties to even; beyond 65504 infinity, as the hardware conversion does."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16)


def f32_to_f32(x: NDArray[Any]) -> F32:
    return x.astype(np.float32, copy=False)
