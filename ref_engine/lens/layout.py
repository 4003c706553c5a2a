"""One value, laid out in two ways: axes reversed or swapped, heads apart or together, an axis of one, padded keys.

`arrangements` lists the ways to lay out an array of one shape as one of another, the plainest first. Shapes alone can
leave several; the caller takes the one that fits best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]
_MOST_AXES = 4  # that are permuted


@dataclass(frozen=True)
class Arrangement:
    """How to lay an array out anew, and in words what that is; no words for nothing worth saying."""

    words: str
    apply: Callable[[Array], Array]


def squeezed(shape: Shape) -> Shape:
    """Without axes of one."""
    return tuple(n for n in shape if n != 1)


def arrangements(have: Shape, want: Shape) -> Iterator[Arrangement]:
    """Ways to make an array of shape `have` one of shape `want`. None where the sizes differ."""
    if prod(have) != prod(want):
        return
    bare, goal = squeezed(have), squeezed(want)
    if have == want:
        yield Arrangement("", lambda x: x)
        return
    if bare == goal:
        yield Arrangement("", lambda x: x.reshape(want))
        return
    if bare[:1] == goal[:1] or len(goal) <= 1 or len(bare) <= 1:
        yield Arrangement(f"regrouped {_text(have)} to {_text(want)}", lambda x: x.reshape(want))
    if len(bare) > _MOST_AXES:
        return
    for order in permutations(range(len(bare))):
        moved = tuple(bare[i] for i in order)
        if order != tuple(range(len(bare))) and (moved == goal or moved[:1] == goal[:1]):
            reverse = len(bare) > 1 and order == tuple(reversed(range(len(bare))))
            words = f"axes {'reversed' if reverse else 'swapped'}: {_text(have)} to {_text(want)}"
            yield Arrangement(words, _moved(bare, order, want))


def _moved(bare: Shape, order: tuple[int, ...], want: Shape) -> Callable[[Array], Array]:
    return lambda x: x.reshape(bare).transpose(order).reshape(want)


def halves_as_pairs(x: Array) -> Array:
    """(..., Hd): features 0, Hd/2, 1, Hd/2 + 1, ...: what transformers keeps in halves, as GGUF files keep it."""
    half = x.shape[-1] // 2
    return np.stack([x[..., :half], x[..., half:]], axis=-1).reshape(x.shape)


def pairs_as_halves(x: Array) -> Array:
    """The way back."""
    return np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)


def with_keys(x: Array, width: int, fill: float) -> Array:
    """The last axis cut or filled up to `width` keys."""
    if x.shape[-1] >= width:
        return x[..., :width]
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])], constant_values=fill)


def rows_of(have: Shape, want: Shape, axis: int) -> int | None:
    """How many tokens an array of shape `have` is about, if it is `want` but for their number; None if it cannot be."""
    per_row = prod(want[:axis]) * prod(want[axis + 1 :])
    return prod(have) // per_row if per_row and prod(have) % per_row == 0 else None


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "one number"
