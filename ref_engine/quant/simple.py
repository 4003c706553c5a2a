"""The 32-weight block types: one scale, or a scale and a minimum, for every 32 weights.

Source: ggml's `block_q4_0` ... `block_q8_1` and `dequantize_row_*`. In the byte diagrams `d` and `m` are float16.
"""

from __future__ import annotations

import numpy as np

from ref_engine.quant.blocks import F32, Blocks, IntegerBlocks, bits, f32, nibbles


def _column(scale: F32) -> F32:
    return scale[..., None]


class Q4_0:
    """value = d * (q - 8), q of 4 bits

    byte  0  1 | 2 ............................. 17
          d    | qs: low nibbles are weights 0..15, high nibbles 16..31
    """

    layout = np.dtype([("d", "<f2"), ("qs", "u1", (16,))])
    size = 32
    activation = "q8_0"

    @staticmethod
    def _q(b: Blocks) -> F32:
        return nibbles(b["qs"]).astype(np.float32) - np.float32(8)

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return Q4_0._q(b) * _column(f32(b["d"]))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return IntegerBlocks(Q4_0._q(b), f32(b["d"]))


class Q4_1:
    """value = d * q + m, q of 4 bits

    byte  0  1 | 2  3 | 4 ............................. 19
          d    | m    | qs: as in Q4_0
    """

    layout = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", (16,))])
    size = 32
    activation = "q8_1"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return nibbles(b["qs"]).astype(np.float32) * _column(f32(b["d"])) + _column(f32(b["m"]))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return IntegerBlocks(nibbles(b["qs"]).astype(np.float32), f32(b["d"]), m=f32(b["m"]))


class Q5_0:
    """value = d * (q - 16), q of 5 bits

    byte  0  1 | 2 ...... 5 | 6 ............................. 21
          d    | qh: bit i  | qs: as in Q4_0
               | is bit 4 of weight i
    """

    layout = np.dtype([("d", "<f2"), ("qh", "u1", (4,)), ("qs", "u1", (16,))])
    size = 32
    activation = "q8_0"

    @staticmethod
    def _q(b: Blocks) -> F32:
        return (nibbles(b["qs"]) | bits(b["qh"]) << 4).astype(np.float32) - np.float32(16)

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return Q5_0._q(b) * _column(f32(b["d"]))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return IntegerBlocks(Q5_0._q(b), f32(b["d"]))


class Q5_1:
    """value = d * q + m, q of 5 bits

    byte  0  1 | 2  3 | 4 ...... 7 | 8 ............................. 23
          d    | m    | qh         | qs: both as in Q5_0
    """

    layout = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", (4,)), ("qs", "u1", (16,))])
    size = 32
    activation = "q8_1"

    @staticmethod
    def _q(b: Blocks) -> F32:
        return (nibbles(b["qs"]) | bits(b["qh"]) << 4).astype(np.float32)

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return Q5_1._q(b) * _column(f32(b["d"])) + _column(f32(b["m"]))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return IntegerBlocks(Q5_1._q(b), f32(b["d"]), m=f32(b["m"]))


class Q8_0:
    """value = d * q, q a signed byte

    byte  0  1 | 2 ............................. 33
          d    | qs: 32 signed bytes
    """

    layout = np.dtype([("d", "<f2"), ("qs", "i1", (32,))])
    size = 32
    activation = "q8_0"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return b["qs"].astype(np.float32) * _column(f32(b["d"]))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return IntegerBlocks(b["qs"].astype(np.float32), f32(b["d"]))


class Q8_1:
    """value = d * q, q a signed byte: how activations are rounded, legal in a file but made by no converter

    byte  0  1 | 2  3                                  | 4 ............. 35
          d    | s: d * sum(q), not needed for values  | qs: 32 signed bytes

    ggml has no dot product with weights of this type; here it is the one of Q8_0.
    """

    layout = np.dtype([("d", "<f2"), ("s", "<f2"), ("qs", "i1", (32,))])
    size = 32
    activation = "q8_0"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return b["qs"].astype(np.float32) * _column(f32(b["d"]))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return IntegerBlocks(b["qs"].astype(np.float32), f32(b["d"]))
