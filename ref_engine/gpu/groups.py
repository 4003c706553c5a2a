"""Rows of x that go to the same matrix of a stack, found on the device: so each matrix is read once for several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ref_engine.gpu import module

PAIRS = 16  # as in which.cuh: rows of x that a matrix is read for at once
_WARPS = 4


@dataclass(frozen=True)
class Groups:
    """Pairs of a row of x and a matrix of a stack, sorted by matrix, in the memory of the device.

    order (n,) int32: pairs by matrix. tiles (m, 4) int32: the matrix, the first place in `order`, and how many pairs
    from there on, at most PAIRS, have that matrix; with no pairs from some tile on.
    """

    order: Any
    tiles: Any


def grouped(ids: Any, n_matrices: int) -> Groups:
    """ids (n,) int32, the matrix of each pair -> groups with as many tiles as there can be, so that the host need not
    know how many there are. An id that is no matrix's is in none."""
    n = ids.size
    most = n // PAIRS + min(n, n_matrices)
    counts = count_experts(ids, n_matrices)
    groups = Groups(np.empty(n, np.int32, like=ids), np.empty((most, 4), np.int32, like=ids))
    numbers = (np.int32(i) for i in (n_matrices, PAIRS, most))
    arguments = (ids, np.int32(n), counts, groups.order, groups.tiles, *numbers)
    module.get("experts", "group")((-(-n_matrices // _WARPS),), (32 * _WARPS,), arguments)
    return groups


def count_experts(ids: Any, n_expert: int, counts: Any = None) -> Any:
    """As reference count_experts: ids (T, k) int32 -> (E,) int64. An id that is no expert's counts nowhere."""
    added, ids = counts is not None, np.ascontiguousarray(ids, like=ids)
    counts = counts if added else np.empty(n_expert, np.int64, like=ids)
    arguments = (ids, np.int64(ids.size), counts, np.int32(n_expert), np.int32(added))
    module.get("experts", "count_experts")((-(-n_expert // _WARPS),), (32 * _WARPS,), arguments)
    return counts
