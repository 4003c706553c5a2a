"""The I-quants: groups of eight or four weights are points of a codebook, or weights are values of a curved table.

Source: ggml's `block_iq1_s` ... `block_iq4_xs` and `dequantize_row_*`. `d` is float16. Scales are odd numbers of
eighths or quarters of `d`; here they are whole numbers and `d` is divided by 8 or 4 instead. All products of a scale,
a point and `d` fit float32 without rounding, so `dequantize` is d * q of the integer view.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.blocks import F32, Blocks, IntegerBlocks, bits, exact_values, f32, nibbles
from ref_engine.quant.codebooks import IQ4_VALUES, codebook, even_signs, signs

_IQ4 = np.array(IQ4_VALUES, np.float32)
_EIGHTH, _QUARTER = np.float32(0.125), np.float32(0.25)


def _points(name: str, index: NDArray[Any]) -> NDArray[np.int8]:
    """Points of a codebook by their numbers: (...) -> (..., 8 or 4)."""
    points: NDArray[np.int8] = np.asarray(codebook(name), like=index)[index]
    return points


def _curved(q: NDArray[np.uint8]) -> F32:
    """Values of the curved table by their numbers."""
    return np.asarray(_IQ4, like=q)[q]


def _view(d: F32, scales: NDArray[Any], points: NDArray[Any]) -> IntegerBlocks:
    """(...) d, (..., n) scales, (..., m, 8 or 4) points with m a multiple of n -> the integer view of 256 weights."""
    lead, n = scales.shape[:-1], scales.shape[-1]
    q = scales.astype(np.float64)[..., None] * points.reshape(*lead, n, -1)
    return IntegerBlocks(q.reshape(*lead, 256), d)


def _words(pairs: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """(..., n, 4) bytes -> (..., n) unsigned 32-bit words, least significant byte first."""
    return np.ascontiguousarray(pairs, like=pairs).view("<u4")[..., 0]


def _signs_and_scale(word: NDArray[np.uint32]) -> tuple[F32, NDArray[np.uint32]]:
    """(..., 8) words of four times 7 sign bits and a 4-bit scale -> (..., 32, 8) signs, (..., 8) odd scales."""
    seven = word[..., None] >> np.array([0, 7, 14, 21], np.uint32, like=word)
    signs_ = signs(even_signs(seven))
    return signs_.reshape(*word.shape[:-1], 32, 8), 2 * (word >> np.uint32(28)) + 1


def _odd_nibbles(scales: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., n) bytes -> (..., 2n) odd scales 1, 3, ... 31: low nibble, high nibble, byte by byte."""
    return (np.stack([scales & 15, scales >> 4], axis=-1) * np.uint8(2) + np.uint8(1)).reshape(*scales.shape[:-1], -1)


class IQ2_XXS:
    """value = d / 8 * scale[j] * sign * point, 8 weights a point, j = weight // 32

    byte  0  1 | 2 ... 65, eight bytes for each j:
          d    | four bytes: indices of four points | 28 bits: four times 7 signs | 4 bits: (scale - 1) / 2
    """

    layout = np.dtype([("d", "<f2"), ("qs", "u1", (64,))])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(IQ2_XXS.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        lead = b["qs"].shape[:-1]
        groups = b["qs"].reshape(*lead, 8, 8)
        sign, scales = _signs_and_scale(_words(groups[..., 4:]))
        points = _points("iq2_xxs", groups[..., :4].reshape(*lead, 32))
        return _view(f32(b["d"]) * _EIGHTH, scales, sign * points)


class IQ2_XS:
    """value = d / 8 * scale[j] * sign * point, 8 weights a point, j = weight // 16

    byte  0  1 | 2 ................................ 65                 | 66 ....................... 73
          d    | 32 words: 9 bits index, 7 bits signs                  | nibble j: (scale - 1) / 2
    """

    layout = np.dtype([("d", "<f2"), ("qs", "<u2", (32,)), ("scales", "u1", (8,))])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(IQ2_XS.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        sign = signs(even_signs((b["qs"] >> 9).astype(np.uint32)))
        points = _points("iq2_xs", b["qs"] & 511)
        return _view(f32(b["d"]) * _EIGHTH, _odd_nibbles(b["scales"]), sign * points)


class IQ2_S:
    """value = d / 8 * scale[j] * sign * point, 8 weights a point, j = weight // 16

    byte  0  1 | 2 .......... 33     | 34 .......... 65  | 66 ............... 73          | 74 .............. 81
          d    | index, low 8 bits   | eight signs       | qh: bits 2k, 2k+1 of byte i    | nibble j:
               |                     |                   | top the index of point 4*i + k | (scale - 1) / 2
    """

    layout = np.dtype(
        [("d", "<f2"), ("qs", "u1", (32,)), ("signs", "u1", (32,)), ("qh", "u1", (8,)), ("scales", "u1", (8,))]
    )
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(IQ2_S.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        shift = np.array([0, 2, 4, 6], np.uint8, like=b["qh"])
        top = (b["qh"][..., None] >> shift & 3).reshape(b["qs"].shape)
        points = _points("iq2_s", b["qs"] | top.astype(np.uint16) << 8)
        return _view(f32(b["d"]) * _EIGHTH, _odd_nibbles(b["scales"]), signs(b["signs"]) * points)


class IQ3_XXS:
    """value = d / 4 * scale[j] * sign * point, 4 weights a point, j = weight // 32

    byte  0  1 | 2 .......... 65     | 66 ... 97, four bytes for each j:
          d    | indices of 64 points | 28 bits: four times 7 signs for 8 weights | 4 bits: (scale - 1) / 2
    """

    layout = np.dtype([("d", "<f2"), ("qs", "u1", (64,)), ("words", "u1", (32,))])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(IQ3_XXS.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        lead = b["qs"].shape[:-1]
        sign, scales = _signs_and_scale(_words(b["words"].reshape(*lead, 8, 4)))
        points = _points("iq3_xxs", b["qs"]).reshape(*lead, 32, 8)
        return _view(f32(b["d"]) * _QUARTER, scales, sign * points)


class IQ3_S:
    """value = d * scale[j] * sign * point, 4 weights a point, j = weight // 32

    byte  0  1 | 2 ....... 65      | 66 ........... 73         | 74 ...... 105       | 106 ........... 109
          d    | index, low 8 bits | qh: bit k of byte i tops  | one bit for each    | nibble j:
               |                   | the index of point 8*i+k  | weight: its sign    | (scale - 1) / 2
    """

    layout = np.dtype(
        [("d", "<f2"), ("qs", "u1", (64,)), ("qh", "u1", (8,)), ("signs", "u1", (32,)), ("scales", "u1", (4,))]
    )
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(IQ3_S.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        index = b["qs"] | bits(b["qh"]).astype(np.uint16) << 8
        points = _points("iq3_s", index).reshape(*b["qs"].shape[:-1], 32, 8)
        return _view(f32(b["d"]), _odd_nibbles(b["scales"]), signs(b["signs"]) * points)


class IQ1_S:
    """value = d * scale[j] * (point + shift[j] / 8), shift 1 or -1, 8 weights a point, j = weight // 32

    byte  0  1 | 2 .......... 33   | 34 ... 49, a word for each j:
          d    | index, low 8 bits | four times 3 bits: top of index | 3 bits: (scale - 1) / 2 | 1 bit: shift is -1

    Integer view: scale * (8 * point + shift) with d / 8. ggml adds two sums, of points and of shifts, in float32.
    """

    layout = np.dtype([("d", "<f2"), ("qs", "u1", (32,)), ("qh", "<u2", (8,))])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(IQ1_S.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        lead = b["qs"].shape[:-1]
        top = b["qh"][..., None] >> np.array([0, 3, 6, 9], np.uint16, like=b["qh"]) & 7
        points = _points("iq1", b["qs"] | top.reshape(*lead, 32) << 8).reshape(*lead, 8, 32)
        shift = np.where(b["qh"] & 0x8000, -1, 1)[..., None]
        return _view(f32(b["d"]) * _EIGHTH, 2 * (b["qh"] >> 12 & 7) + 1, 8 * points + shift)


class IQ1_M:
    """value = d * scale[j] * (point + shift[p] / 8), shift 1 or -1, 8 weights a point p, j = weight // 16

    byte  0 .......... 31     | 32 ............. 47, a nibble for each p  | 48 ... 55, four words
          index, low 8 bits   | 3 bits: top of the index                 | four times 3 bits: (scale - 1) / 2
                              | 1 bit: shift is -1                       | 4 bits: nibble k of word k is nibble k of d

    Integer view as in IQ1_S.
    """

    layout = np.dtype([("qs", "u1", (32,)), ("qh", "u1", (16,)), ("scales", "<u2", (4,))])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(IQ1_M.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        lead = b["qs"].shape[:-1]
        words = b["scales"]
        pattern = (words >> 12 << np.array([0, 4, 8, 12], np.uint16, like=words)).sum(axis=-1, dtype=np.uint16)
        top = np.stack([b["qh"] & 15, b["qh"] >> 4], axis=-1).reshape(*lead, 32)
        points = _points("iq1", b["qs"] | (top & 7).astype(np.uint16) << 8)
        shift = np.where(top & 8, -1, 1)[..., None]
        three = (words[..., None] >> np.array([0, 3, 6, 9], np.uint16, like=words) & 7).reshape(*lead, 16)
        return _view(f32(pattern.view(np.float16)) * _EIGHTH, 2 * three + 1, 8 * points + shift)


class IQ4_NL:
    """value = d * table[q], q of 4 bits

    byte  0  1 | 2 ............................. 17
          d    | qs: low nibbles are weights 0..15, high nibbles 16..31
    """

    layout = np.dtype([("d", "<f2"), ("qs", "u1", (16,))])
    size = 32
    activation = "q8_0"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(IQ4_NL.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        return IntegerBlocks(_curved(nibbles(b["qs"])), f32(b["d"]))


class IQ4_XS:
    """value = d * (scale[j] - 32) * table[q], q of 4 bits, scale of 6 bits, j = weight // 32

    byte  0  1 | 2  3                     | 4 ........ 7           | 8 .................. 135
          d    | bits 2j, 2j+1: top of    | nibble j: low of       | qs: 16 bytes for each j, as in IQ4_NL
               | scale j                  | scale j                |

    ggml multiplies each sum of 32 by its scale in float32; here the sum of 256 is one integer.
    """

    layout = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", (4,)), ("qs", "u1", (128,))])
    size = 256
    activation = "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        return exact_values(IQ4_XS.integers(b))

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        lead = b["d"].shape
        low = np.stack([b["scales_l"] & 15, b["scales_l"] >> 4], axis=-1).reshape(*lead, 8)
        top = b["scales_h"][..., None] >> np.arange(0, 16, 2, dtype=np.uint16, like=low) & 3
        values = _curved(nibbles(b["qs"].reshape(*lead, 8, 16)))
        return _view(f32(b["d"]), (low | top << 4).astype(np.float64) - 32, values)
