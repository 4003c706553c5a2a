"""Groups of neighbouring tokens as one key each (DeepSeek-AI 2026, "DeepSeek-V4").

A group's key is computed from its members alone, in one order of additions, so it does not depend on how a prompt was
split; and it stands behind its group's last token, so that the order of all keys does not either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.reference.elementary import exp
from ref_engine.reference.sums import F32, lane_sum


def pooled(values: F32, gates: F32) -> F32:
    """sum over members j of softmax_j(gate) * value, feature by feature: (G, members, D) twice -> (G, D).

    A member with a gate of minus infinity does not count; at least one of a group does.
    """
    values, gates = np.swapaxes(values, 1, 2), np.swapaxes(gates, 1, 2)
    e = exp(gates - gates.max(axis=-1, keepdims=True))
    weights = e * (np.float32(1) / lane_sum(e))[..., None]
    return lane_sum(values * weights)


def windows(x: F32, ends: NDArray[np.int64], ratio: int, overlap: bool) -> F32:
    """The contributions to each group: x (n, wide) of tokens, rows that end groups (G,) -> (G, members, width).

    overlap: the members of the group before come first, with the first half of their features; then the group's own
    with the second half.
    """
    own: F32 = x[ends[:, None] + np.arange(1 - ratio, 1)]
    if not overlap:
        return own
    before = x[ends[:, None] + np.arange(1 - 2 * ratio, 1 - ratio)]
    half = x.shape[-1] // 2
    return np.concatenate([before[..., :half], own[..., half:]], axis=1)


def ended(positions: NDArray[np.int64], ratio: int, n_groups: int) -> NDArray[np.bool_]:
    """Which groups of `ratio` tokens are complete at each position: (T,) -> (T, n_groups) bool."""
    done: NDArray[np.bool_] = np.arange(n_groups) < ((positions + 1) // ratio)[:, None]
    return done


def interleaved(tokens: NDArray[Any], groups: NDArray[Any], ratio: int, axis: int) -> NDArray[Any]:
    """Each group's entry behind the one of its last token: S and S // ratio entries along an axis -> their sum."""
    n_tokens, n_groups = tokens.shape[axis], groups.shape[axis]
    order = np.insert(np.arange(n_tokens), np.arange(1, n_groups + 1) * ratio, n_tokens + np.arange(n_groups))
    both = np.concatenate([tokens, groups.astype(tokens.dtype, copy=False)], axis=axis)
    mixed: NDArray[Any] = both[(slice(None),) * axis + (order,)]
    return mixed
