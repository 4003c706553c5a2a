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
    counts = np.empty(n_matrices, np.int64, like=ids)
    groups = Groups(np.empty(n, np.int32, like=ids), np.empty((most, 4), np.int32, like=ids))
    grid, block = (-(-n_matrices // _WARPS),), (32 * _WARPS,)
    module.get("experts", "count_experts")(grid, block, (ids, np.int64(n), counts, np.int32(n_matrices)))
    arguments = (ids, np.int32(n), counts, groups.order, groups.tiles)
    module.get("experts", "group")(grid, block, (*arguments, np.int32(n_matrices), np.int32(PAIRS), np.int32(most)))
    return groups
