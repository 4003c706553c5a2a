"""The number types of safetensors as NumPy arrays: float16 stays, every other number becomes float32.

8-bit floats after Micikevicius et al., "FP8 Formats for Deep Learning" (2022): E4M3 has no infinities, E5M2 is the
upper half of a float16. uint8 stays uint8: it is what holds packed blocks.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.plain import bf16_to_f32

ITEM_BYTES: Final = MappingProxyType(
    {
        "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
        "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
    }
)  # fmt: skip
"""Bytes of one number of each type that is read."""

_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8",
          "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1"}  # fmt: skip


def e4m3_to_f32(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sign, four bits of exponent (bias 7), three of fraction; 0x7F and 0xFF are NaN."""
    exponent, fraction = bits >> 3 & 15, (bits & 7).astype(np.float32)
    scale = np.ldexp(np.float32(1), np.maximum(exponent, 1).astype(np.int32) - 10)
    size = np.where(exponent > 0, fraction + 8, fraction) * scale
    size = np.where(bits & 0x7F == 0x7F, np.float32(np.nan), size)
    return np.where(bits & 0x80, -size, size).astype(np.float32)


def decode(raw: NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    """Flat bytes of `dtype` -> flat float32, float16 for F16, uint8 for U8."""
    if dtype == "BF16":
        return bf16_to_f32(raw.view("<u2"))
    if dtype == "F8_E4M3":
        return e4m3_to_f32(raw)
    if dtype == "F8_E5M2":
        return (raw.astype("<u2") << 8).view("<f2").astype(np.float32)
    if dtype == "F8_E8M0":
        return np.where(raw == 255, np.float32(np.nan), np.ldexp(np.float32(1), raw.astype(np.int32) - 127))
    values = raw.view(_NUMPY[dtype])
    return values if dtype in ("F16", "U8") else values.astype(np.float32)
