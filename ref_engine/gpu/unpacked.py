"""Products with packed weights by the library alone: rows are unpacked on the device, then multiplied in float32.

This is how a weight is used that no kernel knows: its bytes stay packed in the memory of the device, a piece of them
at a time is unpacked by the functions of `quant/`, which run there as they do on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ref_engine.quant.types import dequantize
from ref_engine.reference import linear as reference
from ref_engine.reference.linear import Map
from ref_engine.reference.sums import F32
from ref_engine.weights import Weight

_PIECE = 1 << 25  # numbers that are unpacked at once


def linear(x: F32, weight: Weight, bias: F32 | None = None) -> F32:
    """As reference linear_f32, with sums of the library's order: x (T, columns), weight (rows, columns) -> (T, rows).

    Raises ValueError when the widths differ.
    """
    rows, columns = weight.shape[0], weight.shape[-1]
    if x.shape[-1] != columns or 4 * rows * columns <= max(weight.cache.budget, 4 * _PIECE):
        return reference.linear_f32(x, weight, bias)
    data, at_once = weight.bytes_here(), max(1, _PIECE // columns)
    y = np.empty((x.shape[0], rows), np.float32, like=x)
    for first in range(0, rows, at_once):
        y[:, first : first + at_once] = x @ dequantize(data[first : first + at_once], weight.type).T
    return y if bias is None else y + bias


def linears(x: F32, maps: Sequence[Map]) -> list[F32]:
    return [linear(x, weight, bias) for weight, bias in maps]
