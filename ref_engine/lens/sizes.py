"""What a trace of a prompt would hold: names, shapes and types, without computing any of it.

The model's own wiring runs once over operations that are hollow: each gives an array of the right shape which is one
zero, seen many times. So the answer follows the wiring, whatever a family adds to it, and costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.lens.selection import Selection
from ref_engine.ops import Ops
from ref_engine.place import HOST
from ref_engine.quant.rows import width
from ref_engine.reference import moe
from ref_engine.reference.attention import Tap
from ref_engine.reference.linear import Map
from ref_engine.reference.sums import F32
from ref_engine.tracing import by_key, token_axis
from ref_engine.weights import Weight

if TYPE_CHECKING:
    from ref_engine.model import Model

MOST_TOKENS = 512  # in one pass


@dataclass(frozen=True)
class Planned:
    """One name of a trace: the shape that its values will have once they are joined."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # NumPy's name for it
    by_token: bool  # whether `token_axis` counts the tokens, so that positions can be chosen

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


def planned(model: Model, ids: Sequence[int], wanted: Selection, chunk: int, fine: bool = True) -> list[Planned]:
    """Every value that a trace of `ids` would hold, in the order of the graph.

    chunk: tokens in one pass. fine: as `Tap.fine`. Raises what the model would for ids that it cannot run.
    """
    with hollow(model), np.errstate(all="ignore"):
        seen = _Shapes(wanted, fine)
        model.taps, others = [seen], model.taps
        try:
            cache = model.new_cache(_room(model, len(ids)))
            for part in passes(model, ids, chunk):
                model.forward(part, cache)
        finally:
            model.taps = others
    return seen.joined(len(ids))


def passes(model: Model, ids: Sequence[int], chunk: int) -> list[list[int]]:
    """The tokens of each pass; all at once where tokens see later ones."""
    step = min(chunk, MOST_TOKENS) if model.spec.causal else max(len(ids), 1)
    return [list(ids[i : i + step]) for i in range(0, len(ids), step)] or [[]]


def _room(model: Model, n: int) -> int:
    return model.spec.n_ctx if n <= model.spec.n_ctx else model.spec.n_ctx_most


@contextmanager
def hollow(model: Model) -> Iterator[None]:
    """The model with hollow operations, and with its counts of experts left alone."""
    load, model.expert_load = model.expert_load, type(model.expert_load)()
    try:
        with model.computing(hollow_ops):
            yield
    finally:
        model.expert_load = load


def zeros(*shape: int) -> F32:
    """One zero under every index: read-only, and no memory."""
    return np.broadcast_to(np.float32(0), shape)


def hollow_ops(real: Ops) -> Ops:
    """Operations with the signatures of `reference/` that only know shapes. Those of small arrays stay as they are."""

    def linear(x: F32, weight: Weight, bias: F32 | None = None) -> F32:
        if x.shape[-1] != weight.shape[-1]:
            raise ValueError(f"{weight.name}: input of width {x.shape[-1]}, weight of width {weight.shape[-1]}")
        return zeros(x.shape[0], weight.shape[0])

    def linears(x: F32, maps: Sequence[Map]) -> list[F32]:
        return [linear(x, weight) for weight, _ in maps]

    def embed(ids: NDArray[np.int64], weight: Weight) -> F32:
        return zeros(len(ids), weight.shape[-1])

    def same(x: F32, *_: object) -> F32:
        return zeros(*x.shape)

    def glu(gate: F32, up: F32, activation: str, constants: tuple[float, ...] = ()) -> F32:
        return zeros(*up.shape)

    return replace(
        real.composed(),
        place=HOST,
        scope=nullcontext,
        embed=embed,
        linear=linear,
        linears=linears,
        rms_norm=same,
        layer_norm=same,
        rope=same,
        attend=attend,
        glu=glu,
        activation=same,
        soft_cap=same,
        route=real.route if real.place is HOST else moe.route,
        count_experts=moe.count_experts,
        moe_ffn=partial(moe.moe_ffn, linear=linear, glu=glu),
    )


def attend(q: F32, k: NDArray[Any], v: NDArray[Any], positions: NDArray[np.int64], *, tap: Tap | None, **_: Any) -> F32:
    """As reference attend: the same names, nothing in them."""
    if tap is not None:
        tap("kq", zeros(q.shape[1], q.shape[0], k.shape[0]))
        tap("kq_soft_max", zeros(q.shape[1], q.shape[0], k.shape[0]))
        tap("kqv", zeros(q.shape[1], q.shape[0], width(v)))
    return zeros(q.shape[0], q.shape[1] * width(v))


class _Shapes:
    """A tap that notes shapes."""

    def __init__(self, wanted: Selection, fine: bool) -> None:
        self._wanted = wanted
        self.fine = fine
        self._seen: dict[str, list[tuple[int, ...]]] = {}
        self._types: dict[str, np.dtype[Any]] = {}

    def begin(self, positions: NDArray[np.int64]) -> None:
        """Positions do not matter here."""

    def see(self, name: str, value: F32) -> F32:
        if self._wanted.wants(name):
            self._seen.setdefault(name, []).append(value.shape)
            self._types[name] = value.dtype
        return value

    def joined(self, n_tokens: int) -> list[Planned]:
        found = []
        for name, shapes in self._seen.items():
            axis = token_axis(name)
            last = shapes[-1]
            total = sum(shape[axis] for shape in shapes)
            by_token = total == n_tokens
            rows = len(self._wanted.positions) if by_token and self._wanted.positions is not None else total
            width = max(shape[-1] for shape in shapes) if by_key(name) else last[-1]
            shape = (*last[:axis], rows, *last[axis + 1 : -1], width) if len(last) > axis + 1 else (*last[:axis], rows)
            found.append(Planned(name, shape, str(self._types[name]), by_token))
        return found
