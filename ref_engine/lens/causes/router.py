"""Experts: a near tie, another score to choose by, weights from another score."""

from __future__ import annotations

import numpy as np

from ref_engine.lens.causes.scene import Array, Cause, Scene
from ref_engine.lens.pair import Pair
from ref_engine.lens.routing import SCORES, chosen_by, tie


def choice(s: Scene) -> Cause | None:
    """Other experts: was it nearly equal, or are they the best of something else?"""
    if not s.name.startswith(("ffn_moe_topk", "ffn_moe_argsort")):
        return None
    ids = s.near("ffn_moe_topk") or s.pair
    if ids.want.ndim != 2 or (np.sort(ids.want, axis=1) == np.sort(ids.got, axis=1)).all():
        return Cause("router order", "the same experts, ranked in another order") if ids.want.ndim == 2 else None
    near = {stem: found for stem in SCORES if (found := _scores(s, stem)) is not None}
    a = chosen_by(ids.want, {stem: p.want for stem, p in near.items()})
    b = chosen_by(ids.got, {stem: p.got for stem, p in near.items()})
    if a is not None and b is not None and a != b and not _same_choice(near[a], near[b], ids):
        what = ": without the bias" if "biased" in a and "biased" not in b else ""
        what = what or (": with the bias" if "biased" in b and "biased" not in a else "")
        return Cause("router choice", f"B's experts are the best by {b}, A's by {a}{what}")
    for stem in SCORES:
        if stem in near and (words := tie(ids, near[stem])):
            return Cause("router tie", words)
    return Cause("router choice", f"B's experts are not the best by what A ranks ({a or 'unknown'})") if a else None


def _scores(s: Scene, stem: str) -> Pair | None:
    found = s.near(stem)
    return found if found is not None and found.want.ndim == 2 else None


def _same_choice(first: Pair, second: Pair, ids: Pair) -> bool:
    """Whether one order follows from the other, so that it says nothing which of them was ranked."""
    return chosen_by(ids.want, {"": second.want}) is not None


def weights(s: Scene) -> Cause | None:
    """Weights that were taken from another score than A's."""
    if not s.name.startswith("ffn_moe_weights"):
        return None
    ids = s.near("ffn_moe_topk")
    if ids is None or ids.want.shape != s.got.shape[:2] or s.got.ndim != 2:
        return None
    for stem in SCORES:
        found = _scores(s, stem)
        if found is not None and _taken(s, found.got, ids.got):
            return Cause("router weights", f"B's weights are its {stem} of the chosen experts, A's are not")
    return None


def _taken(s: Scene, scores: Array, ids: Array) -> bool:
    if ids.min() < 0 or ids.max() >= scores.shape[1]:
        return False
    return s.explains(np.take_along_axis(scores, ids.astype(np.int64), axis=1))
