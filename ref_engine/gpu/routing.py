"""Routing on the device: one launch a layer, and nothing is asked by the host.

The kernel writes its exponentials and sums in the definition's order, so the same logits choose the same experts and
weigh them by the same bits; only numbers below 2^-126 are zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.gpu import module
from ref_engine.gpu.layers import together
from ref_engine.gpu.module import NOTHING
from ref_engine.reference.moe import Ids, Tap, checked
from ref_engine.reference.moe import route as composed
from ref_engine.reference.sums import F32
from ref_engine.spec import RoutingSpec

_GATES = {"softmax": 0, "sigmoid": 1, "softmax_weight": 2, "sqrt_softplus": 3}
_SELECT = {"gate": 0, "logits": 1, "sigmoid": 2}
_MOST_SHARED = 48 << 10  # bytes that a block has unasked


def route(
    logits: F32,
    n_used: int,
    r: RoutingSpec,
    bias: F32 | None = None,
    given: Ids | None = None,
    tap: Tap | None = None,
) -> tuple[Ids, F32]:
    """As reference route: logits (T, E) -> ids (T, k) int32 and weights (T, k), on the device.

    given: (T, k), of the host. With a tap, or given experts that the device has: the reference's steps. Raises
    ModelError for given experts that are none.
    """
    shared = 16 * logits.shape[1] + 12 * r.groups + 4 * n_used
    if tap is not None or not _known(logits, n_used, r, bias, given) or shared > _MOST_SHARED:
        return composed(logits, n_used, r, bias, given, tap)
    tokens, n = logits.shape
    there: Any = NOTHING
    if given is not None:
        there = np.asarray(np.ascontiguousarray(checked(given, n, r.router)), like=logits)
    ids: Ids = np.empty((tokens, n_used), np.int32, like=logits)
    weights: F32 = np.empty((tokens, n_used), np.float32, like=logits)
    numbers = (n, n_used, _GATES[r.gate], _SELECT[r.select_by], r.groups, r.groups_used, r.normalise)
    cap = r.soft_cap
    arguments = (
        together(logits), together(bias), there, ids, weights, *map(np.int32, numbers),
        np.float32(0 if cap is None else cap), np.float32(0 if cap is None else 1 / cap),
        np.float32(0 if r.scale is None else r.scale),
    )  # fmt: skip
    module.get("route", "route")((tokens,), (32,), arguments, shared_mem=shared)
    return ids, weights


def _known(logits: Any, n_used: int, r: RoutingSpec, bias: Any, given: NDArray[Any] | None) -> bool:
    """Whether the kernel takes this."""
    n = logits.shape[1]
    numbers = logits.dtype == np.float32 and logits.size and (bias is None or bias.shape == (n,))
    if not numbers or not 1 <= n_used <= n or 0 in (r.soft_cap, r.scale):
        return False
    if r.groups > 1 and (n % r.groups or not 1 <= r.groups_used <= r.groups):
        return False
    if given is not None:
        return isinstance(given, np.ndarray) and given.shape == (logits.shape[0], n_used)
    return True
