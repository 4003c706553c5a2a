"""Which GGML type is stored how: the one table from type number to layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ModelError
from ref_engine.files.types import GGMLType
from ref_engine.quant.blocks import F32, BlockType, IntegerBlocks, fields
from ref_engine.quant.fp4 import MXFP4, NVFP4
from ref_engine.quant.iquants import IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ4_NL, IQ4_XS
from ref_engine.quant.kquants import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K
from ref_engine.quant.plain import bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, f32_to_f32
from ref_engine.quant.simple import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1
from ref_engine.quant.ternary import Q1_0, Q2_0, TQ1_0, TQ2_0

BLOCK_TYPES: dict[GGMLType, type[BlockType]] = {
    GGMLType.Q4_0: Q4_0,
    GGMLType.Q4_1: Q4_1,
    GGMLType.Q5_0: Q5_0,
    GGMLType.Q5_1: Q5_1,
    GGMLType.Q8_0: Q8_0,
    GGMLType.Q8_1: Q8_1,
    GGMLType.Q2_K: Q2_K,
    GGMLType.Q3_K: Q3_K,
    GGMLType.Q4_K: Q4_K,
    GGMLType.Q5_K: Q5_K,
    GGMLType.Q6_K: Q6_K,
    GGMLType.Q8_K: Q8_K,
    GGMLType.IQ1_S: IQ1_S,
    GGMLType.IQ1_M: IQ1_M,
    GGMLType.IQ2_XXS: IQ2_XXS,
    GGMLType.IQ2_XS: IQ2_XS,
    GGMLType.IQ2_S: IQ2_S,
    GGMLType.IQ3_XXS: IQ3_XXS,
    GGMLType.IQ3_S: IQ3_S,
    GGMLType.IQ4_NL: IQ4_NL,
    GGMLType.IQ4_XS: IQ4_XS,
    GGMLType.TQ1_0: TQ1_0,
    GGMLType.TQ2_0: TQ2_0,
    GGMLType.MXFP4: MXFP4,
    GGMLType.NVFP4: NVFP4,
    GGMLType.Q1_0: Q1_0,
    GGMLType.Q2_0: Q2_0,
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

NUMBER_TYPES: dict[GGMLType, np.dtype[Any]] = {
    GGMLType.F64: np.dtype("<f8"),
    GGMLType.I8: np.dtype("<i1"),
    GGMLType.I16: np.dtype("<i2"),
    GGMLType.I32: np.dtype("<i4"),
    GGMLType.I64: np.dtype("<i8"),
}
"""Plain numbers that a file may hold, indices for example, and that no matrix product takes, in ggml as here."""


def supported(type: GGMLType) -> bool:
    """Whether a layer can use weights of this type."""
    return type in BLOCK_TYPES or type in PLAIN_TYPES


def dequantize(data: NDArray[np.uint8], type: GGMLType) -> F32:
    """Bytes of whole blocks, any leading shape: (..., n_bytes) uint8 -> (..., n_weights) float32.

    Bit for bit what ggml's to_float gives. Numbers (NUMBER_TYPES) are rounded to the nearest float32, ties to even.
    The bytes may be a GPU's: the values are then made, and stay, there.
    """
    if type in NUMBER_TYPES:
        with np.errstate(over="ignore"):
            return data.view(NUMBER_TYPES[type]).astype(np.float32)
    if type in PLAIN_TYPES:
        return PLAIN_TYPES[type].to_f32(data.view(PLAIN_TYPES[type].layout))
    block = BLOCK_TYPES[type]
    with np.errstate(invalid="ignore", over="ignore"):  # scales of inf and NaN are legal bytes
        records: Any = data.view(block.layout) if isinstance(data, np.ndarray) else fields(data, block.layout)
        values = block.dequantize(records)
    return values.reshape(*data.shape[:-1], -1)


def integers(data: NDArray[np.uint8], type: GGMLType) -> IntegerBlocks:
    """(..., n_bytes) uint8 -> the integer view, with (..., n_blocks, B) integers.

    Raises ModelError for a type that has no blocks.
    """
    if type not in BLOCK_TYPES:
        raise ModelError(f"weights of type {type.name} have no blocks of integers")
    block = BLOCK_TYPES[type]
    with np.errstate(invalid="ignore", over="ignore"):
        return block.integers(data.view(block.layout))
