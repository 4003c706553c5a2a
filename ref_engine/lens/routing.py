"""Experts: the same ones in another order, near ties, and what they were chosen by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.lens.dump import Dump
from ref_engine.lens.pair import Mismatch, Pair, pair
from ref_engine.lens.selection import layer_of

Array = NDArray[Any]
# What experts may be ranked by, and what weights may be taken from.
SCORES = ("ffn_moe_probs_biased", "ffn_moe_probs", "ffn_moe_logits_biased", "ffn_moe_logits", "ffn_moe_probs_masked")


@dataclass
class Orders:
    """For each layer, which of B's choices is A's first, second, ...: (T, k); None where the two agree."""

    known: dict[int, NDArray[np.int64] | None] = field(default_factory=dict)


def fetched(name: str, a: Dump, b: Dump) -> Pair | None:
    """Both values of a name, if both have it whole."""
    if name not in a.tensors or name not in b.tensors:
        return None
    try:
        found = pair(name, a, b)
    except Mismatch:
        return None
    return found if found.printed is None else None


def same_order(p: Pair, a: Dump, b: Dump, orders: Orders) -> tuple[Pair, str]:
    """The pair with B's choices in A's order where a token has the same experts, and a word on how many moved."""
    layer = layer_of(p.name)
    if layer is None or p.printed is not None or not p.name.startswith("ffn_moe_"):
        return p, ""
    topk = f"ffn_moe_topk-{layer}"
    if p.name == f"ffn_moe_argsort-{layer}":
        ids = fetched(topk, a, b)
        if ids is None:
            return p, ""
        return replace(p, want=ids.want, got=ids.want), f"ranks are compared as {topk}"
    if layer not in orders.known:
        ids = fetched(topk, a, b)
        orders.known[layer] = None if ids is None else _order(ids.want, ids.got)
    order = orders.known[layer]
    if order is None or p.got.shape[:2] != order.shape:
        return p, ""
    index = order.reshape(*order.shape, *[1] * (p.got.ndim - 2))
    moved = int((order != np.arange(order.shape[1])).any(axis=1).sum())
    return replace(p, got=np.take_along_axis(p.got, index, axis=1)), f"{moved} tokens rank the same experts otherwise"


def _order(want: Array, got: Array) -> NDArray[np.int64] | None:
    """(T, k) ids twice -> (T, k) places in `got`; None where nothing has to move."""
    if want.ndim != 2 or want.shape != got.shape or (want == got).all():
        return None
    places = np.broadcast_to(np.arange(want.shape[1]), want.shape).copy()
    alike = (np.sort(want, axis=1) == np.sort(got, axis=1)).all(axis=1) & (want != got).any(axis=1)
    by_id = np.argsort(got[alike], axis=1, kind="stable")
    rank = np.argsort(np.argsort(want[alike], axis=1, kind="stable"), axis=1, kind="stable")
    places[alike] = np.take_along_axis(by_id, rank, axis=1)
    return places if alike.any() else None


def tie(ids: Pair, scores: Pair) -> str | None:
    """In words, that wherever the experts differ their scores are nearly equal; None where they are not."""
    rows = np.flatnonzero((np.sort(ids.want, axis=1) != np.sort(ids.got, axis=1)).any(axis=1))
    widest = 0.0
    for t in rows:
        lost = np.setdiff1d(ids.want[t], ids.got[t]).astype(np.int64)
        won = np.setdiff1d(ids.got[t], ids.want[t]).astype(np.int64)
        row = scores.want[t].astype(np.float64)
        noise = np.abs(scores.got[t].astype(np.float64) - row)[np.isfinite(row)].max(initial=0)
        if not lost.size or not won.size or max(lost.max(), won.max()) >= row.size:
            return None
        gap = float(row[lost].max() - row[won].min())
        if gap > 2 * noise + 1e-6 * float(np.ptp(row[np.isfinite(row)])):
            return None
        widest = max(widest, gap)
    if not rows.size:
        return None
    tokens = ", ".join(str(t) for t in rows[:5]) + (", ..." if rows.size > 5 else "")
    return f"tokens {tokens}: the scores of the experts that changed places are at most {widest:.2g} apart"


def ranked(scores: Array, k: int) -> Array:
    """The k largest of each row, as sets: sorted ids."""
    with np.errstate(invalid="ignore"):
        best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :k]
    return np.sort(best, axis=1)


def chosen_by(ids: Array, scores: dict[str, Array]) -> str | None:
    """By which scores these ids are the largest, at nearly every token; None if by none of them."""
    for name, values in scores.items():
        if (ranked(values, ids.shape[1]) == np.sort(ids, axis=1)).all(axis=1).mean() > 0.98:
            return name
    return None
