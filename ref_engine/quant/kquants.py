"""The K-quants: 256 weights in 8 or 16 sub-blocks whose scales are small integers themselves.

Source: ggml's `block_q2_K` ... `block_q8_K` and `dequantize_row_*`. `d` and `dmin` are float16, but for Q8_K.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32, Blocks, IntegerBlocks, f32


def scales_and_mins(packed: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(..., 12) bytes -> eight 6-bit scales and eight 6-bit minima, each (..., 8).

    byte j     (0..3)   high 2 bits: top of scale j+4 | low 6 bits: scale j
    byte j+4   (0..3)   high 2 bits: top of min   j+4 | low 6 bits: min j
    byte j+8   (0..3)   high nibble: low of min   j+4 | low nibble: low of scale j+4
    """
    s, m, low = packed[..., 0:4], packed[..., 4:8], packed[..., 8:12]
    scales = np.concatenate([s & 63, low & 15 | s >> 6 << 4], axis=-1)
    mins = np.concatenate([m & 63, low >> 4 | m >> 6 << 4], axis=-1)
    return scales, mins


def _nibble_pairs(qs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., 128) bytes -> (..., 8, 32): run j holds sub-block 2j in low, 2j + 1 in high nibbles."""
    runs = qs.reshape(*qs.shape[:-1], 4, 1, 32)
    shift = np.array([0, 4], np.uint8, like=qs).reshape(2, 1)
    pairs: NDArray[np.uint8] = (runs >> shift) & np.uint8(15)
    return pairs.reshape(*qs.shape[:-1], 8, 32)


def _flat(x: NDArray[Any]) -> NDArray[Any]:
    return x.reshape(*x.shape[:-2], 256)


def _dequantize_with_mins(b: Blocks, q: NDArray[np.uint8]) -> F32:
    """d * scale * q - dmin * min, rounded where ggml rounds: (d*scale)*q first, then the subtraction."""
    scales, mins = scales_and_mins(b["scales"])
    d = f32(b["d"])[..., None] * scales.astype(np.float32)
    m = f32(b["dmin"])[..., None] * mins.astype(np.float32)
    return _flat(d[..., None] * q.astype(np.float32) - m[..., None])


def _integers_with_mins(b: Blocks, q: NDArray[np.uint8]) -> IntegerBlocks:
    scales, mins = scales_and_mins(b["scales"])
    scaled = _flat(scales.astype(np.float64)[..., None] * q)
    return IntegerBlocks(scaled, f32(b["d"]), mins=mins.astype(np.float64), dmin=f32(b["dmin"]))


def _bit_pairs(qs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., 64) bytes -> (..., 16, 16) of 2 bits: run r of half h is the bits 2r, 2r+1 of its 32 bytes."""
    runs = qs.reshape(*qs.shape[:-1], 2, 1, 32)
    shift = np.array([0, 2, 4, 6], np.uint8, like=qs).reshape(4, 1)
    pairs: NDArray[np.uint8] = (runs >> shift) & np.uint8(3)
    return pairs.reshape(*qs.shape[:-1], 16, 16)


class Q2_K:
    """value = d * scale[j] * q - dmin * min[j], q of 2 bits, scale and min of 4 bits, j = weight // 16

    byte  0 ............ 15           | 16 .......... 79     | 80 81 | 82 83
          low nibble: scale of j      | qs: see `_bit_pairs` | d     | dmin
          high nibble: min of j       |                      |       |
    """

    layout = np.dtype([("scales", "u1", (16,)), ("qs", "u1", (64,)), ("d", "<f2"), ("dmin", "<f2")])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        d = f32(b["d"])[..., None] * (b["scales"] & 15).astype(np.float32)
        m = f32(b["dmin"])[..., None] * (b["scales"] >> 4).astype(np.float32)
        return _flat(d[..., None] * _bit_pairs(b["qs"]).astype(np.float32) - m[..., None])

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        scaled = _flat((b["scales"] & 15).astype(np.float64)[..., None] * _bit_pairs(b["qs"]))
        return IntegerBlocks(scaled, f32(b["d"]), mins=(b["scales"] >> 4).astype(np.float64), dmin=f32(b["dmin"]))


class Q3_K:
    """value = d * (scale[j] - 32) * (q - 4), q of 3 bits, scale of 6 bits, j = weight // 16

    byte  0 ........................ 31 | 32 .............. 95 | 96 ........ 107 | 108 109
          hmask: bit j // 2 of byte i   | qs: low 2 bits, see  | scales: see     | d
          is bit 2 of q of weight       | `_bit_pairs`         | `_scales`       |
          32 * (j // 2) + i             |                      |                 |
    """

    layout = np.dtype([("hmask", "u1", (32,)), ("qs", "u1", (64,)), ("scales", "u1", (12,)), ("d", "<f2")])
    size = 256
    activation = "q8_k"

    @staticmethod
    def _scales(packed: NDArray[np.uint8]) -> F32:
        """(..., 12) bytes -> (..., 16) scales -32 .. 31.

        byte i     (0..7)   low nibble: low of scale i | high nibble: low of scale i+8
        byte i+8   (0..3)   bits 2k, 2k+1: top of scale i+4k
        """
        low = np.concatenate([packed[..., :8] & 15, packed[..., :8] >> 4], axis=-1)
        shift = np.array([0, 2, 4, 6], np.uint8, like=packed).reshape(4, 1)
        top = (packed[..., None, 8:] >> shift) & np.uint8(3)
        scales: NDArray[np.uint8] = low | top.reshape(low.shape) << 4
        return scales.astype(np.float32) - np.float32(32)

    @staticmethod
    def _q(b: Blocks) -> F32:
        """(..., 16, 16) integers -4 .. 3, by sub-block."""
        run = np.arange(8, dtype=np.uint8, like=b["hmask"]).reshape(8, 1)
        high = ((b["hmask"][..., None, :] >> run) & np.uint8(1)).reshape(*b["hmask"].shape[:-1], 16, 16)
        return (_bit_pairs(b["qs"]) | high << 2).astype(np.float32) - np.float32(4)

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        d = f32(b["d"])[..., None] * Q3_K._scales(b["scales"])
        return _flat(d[..., None] * Q3_K._q(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        scaled = _flat(Q3_K._scales(b["scales"]).astype(np.float64)[..., None] * Q3_K._q(b))
        return IntegerBlocks(scaled, f32(b["d"]))


class Q4_K:
    """value = d * scale[j] * q - dmin * min[j], q of 4 bits, j = weight // 32

    byte  0 1 | 2 3  | 4 ........ 15                 | 16 .................. 143
          d   | dmin | scales: see `scales_and_mins` | qs: see `_nibble_pairs`
    """

    layout = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", (12,)), ("qs", "u1", (128,))])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return _dequantize_with_mins(b, _nibble_pairs(b["qs"]))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return _integers_with_mins(b, _nibble_pairs(b["qs"]))


class Q5_K:
    """value = d * scale[j] * q - dmin * min[j], q of 5 bits, j = weight // 32

    byte  0 1 | 2 3  | 4 ... 15 | 16 ............ 47                  | 48 .......... 175
          d   | dmin | scales   | qh: bit j of byte i is bit 4 of     | qs: as in Q4_K
                                | weight i of sub-block j             |
    """

    layout = np.dtype(
        [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", (12,)), ("qh", "u1", (32,)), ("qs", "u1", (128,))]
    )
    size = 256
    activation = "q8_k"

    @staticmethod
    def _q(b: Blocks) -> NDArray[np.uint8]:
        j = np.arange(8, dtype=np.uint8, like=b["qh"]).reshape(8, 1)
        high: NDArray[np.uint8] = (b["qh"][..., None, :] >> j) & np.uint8(1)
        return _nibble_pairs(b["qs"]) | high << np.uint8(4)

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return _dequantize_with_mins(b, Q5_K._q(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return _integers_with_mins(b, Q5_K._q(b))


class Q6_K:
    """value = d * scale[j] * (q - 32), q of 6 bits, scale a signed byte, j = weight // 16

        byte  0 ......... 127 | 128 ........ 191 | 192 ... 207        | 208 209
              ql: low nibbles | qh: high 2 bits  | scales: 16 signed  | d

    Each half of 128 weights is four runs of 32 weights: run r takes the nibble (r // 2) of ql[32 * (r % 2) + i]
    and the bits 2r, 2r+1 of qh[i].
    """

    layout = np.dtype([("ql", "u1", (128,)), ("qh", "u1", (64,)), ("scales", "i1", (16,)), ("d", "<f2")])
    size = 256
    activation = "q8_k"

    @staticmethod
    def _q(b: Blocks) -> NDArray[np.int8]:
        """(..., 16, 16) integers -32 .. 31, by sub-block."""
        lead = b["ql"].shape[:-1]
        two, four = (np.array(shifts, np.uint8, like=b["ql"]).reshape(-1, 1) for shifts in ([0, 4], [0, 2, 4, 6]))
        ql = b["ql"].reshape(*lead, 2, 1, 64) >> two & 15
        qh = b["qh"].reshape(*lead, 2, 1, 32) >> four & 3
        q = ql.reshape(*lead, 2, 4, 32) | qh << 4
        return (q.astype(np.int8) - np.int8(32)).reshape(*lead, 16, 16)

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        d = f32(b["d"])[..., None] * b["scales"].astype(np.float32)
        return _flat(d[..., None] * Q6_K._q(b).astype(np.float32))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        scaled = _flat(b["scales"].astype(np.float64)[..., None] * Q6_K._q(b))
        return IntegerBlocks(scaled, f32(b["d"]))


class Q8_K:
    """value = d * q, q a signed byte: how activations are rounded, legal in a file but made by no converter

    byte  0 1 2 3      | 4 ................ 259    | 260 .................. 291
          d (float32)  | qs: 256 signed bytes      | bsums: int16, sums of 16 q each, not needed for the values

    ggml has no dot product with weights of this type; here it is the one of the other K-quants.
    """

    layout = np.dtype([("d", "<f4"), ("qs", "i1", (256,)), ("bsums", "<i2", (16,))])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        d: F32 = b["d"]
        return d[..., None] * b["qs"].astype(np.float32)

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return IntegerBlocks(b["qs"].astype(np.float64), b["d"].astype(np.float32))
