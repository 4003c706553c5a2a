"""Weights of one or two bits that are -1, 0 or 1 times a scale (or also 2: Q2_0), for models trained so.

Source: ggml's `block_tq1_0`, `block_tq2_0`, `block_q1_0`, `block_q2_0` and `dequantize_row_*`. `d` is float16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32, Blocks, IntegerBlocks, bits, exact_values, f32


def _trits(packed: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """(..., k) bytes -> (..., n, k) digits 0..2 of base 3, the most significant first.

    A byte is ceil(256 * t / 243), t the number that the digits make: multiplying by 3 carries the first digit into
    the ninth bit, and the low eight bits hold what is left.
    """
    powers = np.array([1, 3, 9, 27, 81], np.uint8, like=packed)[:n].reshape(n, 1)
    rest = packed[..., None, :] * powers  # modulo 256
    digits: NDArray[np.uint8] = (rest.astype(np.uint16) * np.uint16(3) >> np.uint16(8)).astype(np.uint8)
    return digits


class TQ1_0:
    """value = d * (q - 1), q of one base-3 digit, five or four digits to a byte

    byte  0 ............ 31              | 32 ............ 47              | 48 ... 51                       | 52 53
          weights 0..159: digit k of     | weights 160..239: digit k of    | weights 240..255: digit k of    | d
          byte i is weight 32 * k + i    | byte i is weight 160 + 16*k + i | byte i is weight 240 + 4*k + i  |
    """

    layout = np.dtype([("qs", "u1", (48,)), ("qh", "u1", (4,)), ("d", "<f2")])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(TQ1_0.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        runs = (_trits(b["qs"][..., :32], 5), _trits(b["qs"][..., 32:], 5), _trits(b["qh"], 4))
        lead = b["qh"].shape[:-1]
        q = np.concatenate([run.reshape(*lead, -1) for run in runs], axis=-1)
        return IntegerBlocks(q.astype(np.float64) - 1, f32(b["d"]))


class TQ2_0:
    """value = d * (q - 1), q of 2 bits

    byte  0 ...................... 63                                 | 64 65
          half h, run r, byte i: bits 2r, 2r+1 of byte 32 * h + i     | d
          are weight 128 * h + 32 * r + i                             |
    """

    layout = np.dtype([("qs", "u1", (64,)), ("d", "<f2")])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(TQ2_0.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        lead = b["qs"].shape[:-1]
        runs = b["qs"].reshape(*lead, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8, like=b["qs"]).reshape(4, 1) & 3
        return IntegerBlocks(runs.reshape(*lead, 256).astype(np.float64) - 1, f32(b["d"]))


def _cut(q: F32, d: F32) -> IntegerBlocks:
    """Blocks of B weights with one scale -> B / 32 times as many blocks of 32, for activations in blocks of 32.

    ggml adds the parts before it multiplies by the weight's scale; here each part is a block of its own.
    """
    parts = q.shape[-1] // 32
    return IntegerBlocks(q.reshape(*q.shape[:-2], -1, 32), np.repeat(d, parts, axis=-1))


class Q1_0:
    """value = d where the bit is 1, -d where it is 0

    byte  0  1 | 2 ......................................... 17
          d    | qs: bit j of byte i is weight 8 * i + j
    """

    layout = np.dtype([("d", "<f2"), ("qs", "u1", (16,))])
    size = 128
    activation = "q8_0"

    @staticmethod
    def _q(b: Blocks) -> F32:
        return bits(b["qs"]).astype(np.float32) * np.float32(2) - np.float32(1)

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return f32(b["d"])[..., None] * Q1_0._q(b)

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return _cut(Q1_0._q(b), f32(b["d"]))


class Q2_0:
    """value = d * (q - 1), q of 2 bits: -1, 0, 1 or 2 times d

    byte  0  1 | 2 ......................................... 17
          d    | qs: bits 2k, 2k+1 of byte i are weight 4 * i + k
    """

    layout = np.dtype([("d", "<f2"), ("qs", "u1", (16,))])
    size = 64
    activation = "q8_0"

    @staticmethod
    def _q(b: Blocks) -> F32:
        pairs = b["qs"][..., None] >> np.array([0, 2, 4, 6], np.uint8, like=b["qs"]) & 3
        return pairs.reshape(*b["qs"].shape[:-1], 64).astype(np.float32) - np.float32(1)

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return f32(b["d"])[..., None] * Q2_0._q(b)

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return _cut(Q2_0._q(b), f32(b["d"]))
