"""The right numbers in the wrong place: axes, heads, features, tokens, keys, another tensor's."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from ref_engine.lens.causes.scene import F64, Cause, Scene
from ref_engine.lens.layout import halves_as_pairs, pairs_as_halves
from ref_engine.lens.measure import nmse
from ref_engine.lens.selection import layer_of

_MOST_CANDIDATES = 64  # other tensors that are read


def transposed(s: Scene) -> Cause | None:
    """B's numbers are A's in the order of other axes."""
    shape = s.want.shape
    for order in permutations(range(len(shape))):
        if order == tuple(range(len(shape))):
            continue
        moved = s.want.transpose(order)
        if s.explains(moved.reshape(shape)):
            return Cause("transposed", f"B has A's numbers with axes {order} in place of {tuple(range(len(shape)))}")
        back = s.want.reshape(moved.shape).transpose(np.argsort(order))
        if s.explains(back):
            return Cause("transposed", f"B is A read as {moved.shape} and laid out as {shape}")
    return None


def permuted_heads(s: Scene) -> Cause | None:
    """B's head i is A's head p(i): (T, H, Hd)."""
    if s.want.ndim != 3 or s.want.shape[1] < 2:
        return None
    n = s.want.shape[1]
    order = []
    for i in range(n):
        apart = [((s.got[:, i] - s.want[:, j]) ** 2).sum() for j in range(n)]
        order.append(int(np.argmin(apart)))
    if order == list(range(n)) or not s.explains(s.want[:, order]):
        return None
    return Cause("heads", f"B's heads are A's heads {', '.join(map(str, order[:32]))}")


def interleaved(s: Scene) -> Cause | None:
    """Features of each head in halves where A has pairs, or the other way round."""
    if s.want.ndim != 3 or s.want.shape[-1] % 2:
        return None
    for value, words in (
        (pairs_as_halves(s.want), "in halves, A's in pairs"),
        (halves_as_pairs(s.want), "in pairs, A's in halves"),
    ):
        if s.explains(value):
            return Cause("features", f"B's features of each head lie {words}: rows of the weight permuted, or not")
    return None


def shifted(s: Scene) -> Cause | None:
    """B's row t is A's row t - d; or its last axis is shifted."""
    n = s.want.shape[0]
    for d in (1, -1, 2, -2):
        if n > abs(d) + 1 and _equal(s, s.want[: n - d] if d > 0 else s.want[-d:], s.got[d:] if d > 0 else s.got[:d]):
            return Cause("position", f"B's token t is A's token t{-d:+d}: rows off by {abs(d)}")
    return None


def _equal(s: Scene, want: F64, got: F64) -> bool:
    return bool(want.any()) and nmse(got, want) < min(0.02 * s.off, max(s.limit, 1e-8))


def another_tensor(s: Scene) -> Cause | None:
    """B holds what A has under another name of the same layer, or of a neighbour."""
    layer, tried = s.layer, 0
    for name, tensor in s.a.tensors.items():
        near = layer_of(name)
        apart = 0 if layer is None or near is None else abs(near - layer)
        if name == s.name or tensor.shape != s.a.tensors[s.name].shape or tensor.load is None or apart > 1:
            continue
        if near != layer and name.rsplit("-", 1)[0] != s.name.rsplit("-", 1)[0]:
            continue
        tried += 1
        value = np.moveaxis(tensor.load(), s.pair.axis, 0)
        if value.shape == s.got.shape and s.explains(value):
            return Cause("another tensor", f"B has what A calls {name}")
        if tried >= _MOST_CANDIDATES:
            break
    return None
