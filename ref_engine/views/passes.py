"""A text through a model in pieces, with a cache of its own, so that between two pieces others can use the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ref_engine.blocks.expert_load import ExpertLoad
from ref_engine.cache import Cache
from ref_engine.errors import RefEngineError
from ref_engine.model import Model
from ref_engine.ops import Ops
from ref_engine.reference.sums import F32
from ref_engine.spec import LayerSpec, SumSpec
from ref_engine.spec.parts import Part

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work in pieces of a fraction of a second each; nothing of the model is held between two of them."""

PIECE = 64  # tokens in one pass


def finished(steps: Steps[T]) -> T:
    """All steps at once, and what they come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value


class Recorder:
    """A tap that keeps the values of some names, of one pass. Fused operations stay fused."""

    fine = False

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self.values: dict[str, F32] = {}

    def begin(self, positions: NDArray[np.int64]) -> None:
        """A pass begins; nothing depends on where."""

    def see(self, name: str, value: F32) -> F32:
        if name in self._names:
            self.values[name] = value.copy()
        return value


@dataclass(frozen=True)
class Piece:
    """Some tokens of the text, `start` .. `stop` - 1, and what was recorded of them. logits: (n, V), if wanted."""

    start: int
    stop: int
    seen: Mapping[str, F32]
    logits: F32 | None


def passes(
    model: Model,
    ids: Sequence[int],
    names: Collection[str] = (),
    *,
    logits: bool = False,
    most: int = PIECE,
    change: Callable[[Ops], Ops] = lambda ops: ops,
) -> Iterator[Piece]:
    """One pass after the other over the text, in pieces of at most `most` tokens.

    names: of the values to record, whole; none from inside fused operations. change: see `Model.computing`.

    A model whose tokens see later ones has its text in one piece. Raises RefEngineError for ids that are no text of
    this model's, ContextFull where there are too many; before anything is computed.
    """
    known = model.checked_ids(ids).tolist()
    cache = cache_for(model, len(known))
    most = most if model.spec.causal else len(known)
    for start in range(0, len(known), most):
        part = known[start : start + most]
        recorder, scores = Recorder(frozenset(names)), None
        with unnoticed(model), watched(model, recorder), model.computing(change):
            if logits:
                scores = model.forward(part, cache)
            else:
                model.step([(part, cache)])
        yield Piece(start, start + len(part), recorder.values, scores)


def cache_for(model: Model, n: int) -> Cache:
    """An empty cache for a text of n tokens. Raises ContextFull where none has room for it."""
    cache = model.new_cache(model.n_ctx if n <= model.n_ctx else model.spec.n_ctx_most)
    cache.room_for(n)
    return cache


@contextmanager
def watched(model: Model, tap: Recorder) -> Iterator[None]:
    model.taps.append(tap)
    try:
        yield
    finally:
        model.taps.remove(tap)


@contextmanager
def unnoticed(model: Model) -> Iterator[None]:
    """Who looks does not count: the load of experts is that of the texts that were asked for."""
    load, model.expert_load = model.expert_load, ExpertLoad()
    try:
        yield
    finally:
        model.expert_load = load


def shown_name(layer: LayerSpec, index: int, name: str) -> str | None:
    """Under which name a layer shows its value `name`; None where it does not."""
    shown = layer.names.get(name, name)
    return None if shown is None else f"{shown}-{index}"


def parts_of(layer: LayerSpec) -> Iterator[Part]:
    """The parts of a layer, those that run side by side one by one."""
    for half in layer.halves:
        yield from half.parts if isinstance(half, SumSpec) else (half,)


def window(n: int, start: int | None, stop: int | None) -> tuple[int, int]:
    """The positions start .. stop - 1 of n that are wanted, by default all. Raises RefEngineError for none of them."""
    first, last = start or 0, n if stop is None else stop
    if not 0 <= first < last <= n:
        raise RefEngineError(f"positions {first} to {last} are not within the {n} tokens of the text")
    return first, last
