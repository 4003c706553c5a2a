"""A text through a model in pieces, with a cache of its own, so that between two pieces others can use the model."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ref_engine.blocks.expert_load import ExpertLoad
from ref_engine.errors import RefEngineError
from ref_engine.model import Model
from ref_engine.reference.sums import F32
from ref_engine.spec import LayerSpec, SumSpec
from ref_engine.spec.parts import Part
from ref_engine.tracing import Trace, trace

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


@dataclass(frozen=True)
class Piece:
    """Some tokens of the text, `start` .. `stop` - 1, and what was recorded of them. logits: (n, V), if wanted."""

    start: int
    stop: int
    seen: Trace
    logits: F32 | None


def passes(
    model: Model, ids: Sequence[int], names: Iterable[str], *, logits: bool = False, most: int = PIECE
) -> Iterator[Piece]:
    """One pass after the other over the text, in pieces of at most `most` tokens; names: those to record.

    A model whose tokens see later ones has its text in one piece. Raises RefEngineError for ids that are no text of
    this model's, ContextFull where there are too many; before anything is computed.
    """
    known = model.checked_ids(ids).tolist()
    cache = model.new_cache()
    cache.room_for(len(known))
    most = most if model.spec.causal else len(known)
    exact = tuple(names)
    for start in range(0, len(known), most):
        part = known[start : start + most]
        with unnoticed(model), trace(model, *(exact or ("",))) as seen:
            if logits:
                scores = model.forward(part, cache)
            else:
                model.step([(part, cache)])
        yield Piece(start, start + len(part), seen, scores if logits else None)


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
