"""float32 to blocks: the same bytes that ggml's quantisers write.

    quantize(rows, GGMLType.Q4_K)                        as `llama-quantize` without an importance matrix
    quantize(rows, GGMLType.Q4_K, importance=column)     with one: the mean square of each input of the layer

Source: `ggml_quantize_chunk` (built, as it is by default, without fused multiply-add). Types that are only used for
activations (Q8_1, Q8_K) and types of plain integers are not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ModelError
from ref_engine.files.types import BLOCK, GGMLType, row_bytes
from ref_engine.quant import quantize_iq1 as iq1
from ref_engine.quant import quantize_iq2 as iq2
from ref_engine.quant import quantize_iq3 as iq3
from ref_engine.quant import quantize_iq4 as iq4
from ref_engine.quant import quantize_k as k
from ref_engine.quant import quantize_simple as simple
from ref_engine.quant.blocks import F32
from ref_engine.quant.types import PLAIN_TYPES

Quantiser = Callable[[F32, F32 | None], NDArray[Any]]

QUANTISERS: Final[Mapping[GGMLType, Quantiser]] = MappingProxyType(
    {
        GGMLType.Q4_0: simple.quantize_q4_0,
        GGMLType.Q4_1: simple.quantize_q4_1,
        GGMLType.Q5_0: simple.quantize_q5_0,
        GGMLType.Q5_1: simple.quantize_q5_1,
        GGMLType.Q8_0: simple.quantize_q8_0,
        GGMLType.Q2_K: k.quantize_q2_k,
        GGMLType.Q3_K: k.quantize_q3_k,
        GGMLType.Q4_K: k.quantize_q4_k,
        GGMLType.Q5_K: k.quantize_q5_k,
        GGMLType.Q6_K: k.quantize_q6_k,
        GGMLType.IQ1_S: iq1.quantize_iq1_s,
        GGMLType.IQ1_M: iq1.quantize_iq1_m,
        GGMLType.IQ2_XXS: iq2.quantize_iq2_xxs,
        GGMLType.IQ2_XS: iq2.quantize_iq2_xs,
        GGMLType.IQ2_S: iq2.quantize_iq2_s,
        GGMLType.IQ3_XXS: iq3.quantize_iq3_xxs,
        GGMLType.IQ3_S: iq3.quantize_iq3_s,
        GGMLType.IQ4_NL: iq4.quantize_iq4_nl,
        GGMLType.IQ4_XS: iq4.quantize_iq4_xs,
        GGMLType.TQ1_0: simple.quantize_tq1_0,
        GGMLType.TQ2_0: simple.quantize_tq2_0,
        GGMLType.MXFP4: simple.quantize_mxfp4,
        GGMLType.NVFP4: simple.quantize_nvfp4,
        GGMLType.Q1_0: simple.quantize_q1_0,
        GGMLType.Q2_0: simple.quantize_q2_0,
    }
)
"""(N, B) float32 blocks, and what their errors cost or None -> N records of the type."""

NEEDS_IMPORTANCE = frozenset({GGMLType.IQ1_S, GGMLType.IQ2_XXS, GGMLType.IQ2_XS})
"""Types that ggml does not quantise to without importances."""

_WEIGHTED_BY_ROW = frozenset({GGMLType.Q4_0, GGMLType.Q4_1, GGMLType.Q5_0, GGMLType.Q5_1})
_WEIGHTS_AT_A_TIME = 1 << 18  # temporaries that stay in a core's cache


def can_quantize(type: GGMLType) -> bool:
    return type in QUANTISERS or type in PLAIN_TYPES


def quantize(rows: NDArray[Any], type: GGMLType, importance: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """Pack rows of weights.

    Args:
        rows: (..., K) float32, K a whole number of blocks.
        importance: (K,) float32, what an error of each column costs; None: all the same. Types whose quantiser in
            ggml does not look at it (F16, Q8_0, TQ1_0, MXFP4, ...) do not here.

    Returns (..., bytes of a row) uint8. Raises ModelError for a type that has no quantiser or needs importances, and
    for weights or importances that are not finite or (importances) negative, GGUFError where K is not a whole number
    of blocks, ValueError for importances of another length.
    """
    check_type(type, importance)
    columns = rows.shape[-1]
    nbytes = row_bytes(type, columns)
    flat = np.ascontiguousarray(rows, np.float32).reshape(-1, columns)
    check_importance(importance, columns)
    out = np.empty((len(flat), nbytes), np.uint8)
    at_a_time = max(1, _WEIGHTS_AT_A_TIME // max(columns, 1))
    for start in range(0, len(flat), at_a_time):
        part = flat[start : start + at_a_time]
        if not np.isfinite(part).all():
            row, column = np.argwhere(~np.isfinite(part))[0]
            value = part[row, column]
            raise ModelError(f"weight {value} in row {start + row}, column {column} cannot be quantised")
        out[start : start + at_a_time] = _pack(part, type, importance).reshape(len(part), nbytes)
    return out.reshape(*rows.shape[:-1], nbytes)


def check_type(type: GGMLType, importance: NDArray[Any] | None) -> None:
    """Raises ModelError for a type that has no quantiser, or needs importances and gets none."""
    if not can_quantize(type):
        raise ModelError(f"there is no quantiser to {type.name}")
    if importance is None and type in NEEDS_IMPORTANCE:
        raise ModelError(f"quantising to {type.name} needs an importance matrix")


def check_importance(importance: NDArray[Any] | None, columns: int) -> None:
    """Raises ValueError for importances of another length, ModelError for one that is negative or not finite."""
    if importance is None:
        return
    if importance.shape != (columns,):
        raise ValueError(f"importances of shape {list(importance.shape)} for rows of {columns}")
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ModelError("an importance is negative or not finite")


def _pack(rows: F32, type: GGMLType, importance: NDArray[Any] | None) -> NDArray[np.uint8]:
    """(R, K) -> bytes, some rows at a time."""
    if type in PLAIN_TYPES:
        return np.ascontiguousarray(PLAIN_TYPES[type].from_f32(rows)).view(np.uint8)
    size = BLOCK[type][0]
    with np.errstate(all="ignore"):  # scales of zero and sums that overflow are part of the arithmetic
        costs = None
        if importance is not None:
            column = importance.astype(np.float32)
            by_row = type in _WEIGHTED_BY_ROW
            costs = simple.row_weights(rows, column) if by_row else np.broadcast_to(column, rows.shape)
            costs = np.ascontiguousarray(costs).reshape(-1, size)
        return QUANTISERS[type](rows.reshape(-1, size), costs).view(np.uint8)
