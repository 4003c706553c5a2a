"""Which GGML type is stored how: the one table from type number to layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ModelError
from ref_engine.files.types import GGMLType
from ref_engine.quant.blocks import F32, BlockType, IntegerBlocks
from ref_engine.quant.kquants import Q4_K, Q5_K, Q6_K
from ref_engine.quant.plain import bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, f32_to_f32
from ref_engine.quant.simple import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0

BLOCK_TYPES: dict[GGMLType, type[BlockType]] = {
    GGMLType.Q4_0: Q4_0,
    GGMLType.Q4_1: Q4_1,
    GGMLType.Q5_0: Q5_0,
    GGMLType.Q5_1: Q5_1,
    GGMLType.Q8_0: Q8_0,
    GGMLType.Q4_K: Q4_K,
    GGMLType.Q5_K: Q5_K,
    GGMLType.Q6_K: Q6_K,
}


@dataclass(frozen=True)
class PlainType:
    """A type with one number per weight: how it is stored, and how float32 is rounded to it."""

    layout: np.dtype[Any]
    to_f32: Callable[[NDArray[Any]], F32]
    from_f32: Callable[[F32], NDArray[Any]]


PLAIN_TYPES: dict[GGMLType, PlainType] = {
    GGMLType.F32: PlainType(np.dtype("<f4"), f32_to_f32, f32_to_f32),
    GGMLType.F16: PlainType(np.dtype("<f2"), f16_to_f32, f32_to_f16),
    GGMLType.BF16: PlainType(np.dtype("<u2"), bf16_to_f32, f32_to_bf16),
}


def supported(type: GGMLType) -> bool:
    return type in BLOCK_TYPES or type in PLAIN_TYPES


def _check(type: GGMLType) -> None:
    if not supported(type):
        known = ", ".join(t.name for t in (*PLAIN_TYPES, *BLOCK_TYPES))
        raise ModelError(f"weights of type {type.name} are not supported yet (supported: {known})")


def dequantize(data: NDArray[np.uint8], type: GGMLType) -> F32:
    """Bytes of whole blocks, any leading shape: (..., n_bytes) uint8 -> (..., n_weights) float32.

    Bit for bit what ggml's to_float gives. Raises ModelError for a type without a definition.
    """
    _check(type)
    if type in PLAIN_TYPES:
        return PLAIN_TYPES[type].to_f32(data.view(PLAIN_TYPES[type].layout))
    block = BLOCK_TYPES[type]
    with np.errstate(invalid="ignore", over="ignore"):  # scales of inf and NaN are legal bytes
        values = block.dequantize(data.view(block.layout))
    return values.reshape(*data.shape[:-1], -1)


def integers(data: NDArray[np.uint8], type: GGMLType) -> IntegerBlocks:
    """(..., n_bytes) uint8 -> the integer view, with (..., n_blocks, B) integers. Raises ModelError as above."""
    _check(type)
    block = BLOCK_TYPES[type]
    return block.integers(data.view(block.layout))
