"""Four-bit floats: MXFP4 (OCP microscaling) and NVFP4. A weight is E2M1: 0, 0.5, 1, 1.5, 2, 3, 4 or 6, and a sign.

Source: ggml's `block_mxfp4`, `block_nvfp4`, `dequantize_row_*` and `ggml_e8m0_to_fp32_half`, `ggml_ue4m3_to_fp32`.
Values are kept twice as large and scales half as large, so that the values are integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32, Blocks, IntegerBlocks, exact_values, nibbles
from ref_engine.quant.codebooks import E2M1_TWICE

_TWICE = np.array(E2M1_TWICE, np.float32)


def _values(q: NDArray[np.uint8]) -> F32:
    """Twice the values of four-bit floats."""
    return np.asarray(_TWICE, like=q)[q]


def half_e8m0(e: NDArray[np.uint8]) -> F32:
    """Half of the power of two that the byte stands for: 2^(e - 128), for 255 too (a NaN in the OCP standard)."""
    return np.ldexp(np.float32(1), e.astype(np.int32) - 128)


def ue4m3_units(x: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Unsigned floats of 4 exponent bits (bias 7) and 3 mantissa bits, in units of their smallest step, 2^-9.

    The top bit is not looked at; 127, which is NaN in the standard, is zero.
    """
    exponent, mantissa = x >> 3 & 15, (x & 7).astype(np.float64)
    normal = np.ldexp(mantissa + 8, exponent.astype(np.int32) - 1)
    return np.where(x == 127, 0.0, np.where(exponent == 0, mantissa, normal))


class MXFP4:
    """value = 2^(e - 127) * E2M1

    byte  0 | 1 ............................. 16
          e | qs: low nibbles are weights 0..15, high nibbles 16..31
    """

    layout = np.dtype([("e", "u1"), ("qs", "u1", (16,))])
    size = 32
    activation = "q8_0"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(MXFP4.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return IntegerBlocks(_values(nibbles(b["qs"])), half_e8m0(b["e"]))


class NVFP4:
    """value = scale[j] * E2M1, scale an unsigned float of 8 bits, j = weight // 16

    byte  0 ... 3 | 4 ............................. 35
          scales  | qs: of the 8 bytes of j, low nibbles are its weights 0..7, high nibbles 8..15

    Integer view: a scale is a whole number of steps of 2^-9 (at most 480 * 2^9), so the products of scale and value
    are integers and every block of 32 has the same float scale, 2^-10. ggml multiplies the sum of 16 by its scale in
    float32 instead; the two differ by rounding only. A dot is below 2^35: exact in float64.
    """

    layout = np.dtype([("scales", "u1", (4,)), ("qs", "u1", (32,))])
    size = 64
    activation = "q8_0"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(NVFP4.integers(b)).reshape(*b["qs"].shape[:-1], 64)

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        lead = b["qs"].shape[:-1]
        values = _values(nibbles(b["qs"].reshape(*lead, 4, 8)))
        scaled = ue4m3_units(b["scales"])[..., None] * values
        q = scaled.reshape(*lead[:-1], -1, 32)
        return IntegerBlocks(q, np.asarray(np.full(q.shape[:-1], 2.0**-10, np.float32), like=q))
