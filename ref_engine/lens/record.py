"""Run a prompt and keep named values of it on disk: at no time is more than one value in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError
from ref_engine.lens.dump import Dump, Facts, Tensor, Turns
from ref_engine.lens.npz import Raw
from ref_engine.lens.selection import Selection
from ref_engine.lens.sizes import Planned, passes, planned
from ref_engine.reference.rope import rope_table
from ref_engine.reference.sums import F32
from ref_engine.tracing import by_key, missing_key, token_axis

if TYPE_CHECKING:
    from ref_engine.model import Model


class Spool:
    """A tap that writes every planned value to a file of its own in `folder`, each pass where it belongs."""

    def __init__(self, plan: Sequence[Planned], wanted: Selection, folder: Path, fine: bool = True) -> None:
        self.fine = fine
        self._wanted = wanted
        self._first = 0  # position of the pass's first token
        self._plan = {p.name: p for p in plan}
        self._done = {p.name: 0 for p in plan}  # rows written
        self.files = [Raw(p.name, np.dtype(p.dtype), p.shape, folder / f"{i}.raw") for i, p in enumerate(plan)]
        self._files = {file.name: file for file in self.files}
        for file in self.files:
            file.path.write_bytes(b"")

    def begin(self, positions: NDArray[np.int64]) -> None:
        self._first = int(positions[0])

    def see(self, name: str, value: F32) -> F32:
        plan = self._plan.get(name)
        if plan is not None:
            self._write(plan, self._chosen(plan, value))
        return value

    def _chosen(self, plan: Planned, value: NDArray[Any]) -> NDArray[Any]:
        """The rows of the wanted positions."""
        if self._wanted.positions is None or not plan.by_token:
            return value
        axis = token_axis(plan.name)
        here = np.array(self._wanted.positions) - self._first
        rows = here[(here >= 0) & (here < value.shape[axis])]
        chosen: NDArray[Any] = value.take(rows, axis=axis)
        return chosen

    def _write(self, plan: Planned, value: NDArray[Any]) -> None:
        axis, first = token_axis(plan.name), self._done[plan.name]
        rows = value.shape[axis]
        self._done[plan.name] = first + rows
        if first + rows > plan.shape[axis]:
            raise RefEngineError(f"{plan.name}: more rows than the {plan.shape[axis]} that were planned")
        if by_key(plan.name) and value.shape[-1] < plan.shape[-1]:
            gap = [(0, 0)] * (value.ndim - 1) + [(0, plan.shape[-1] - value.shape[-1])]
            value = np.pad(value, gap, constant_values=missing_key(plan.name))
        file = self._files[plan.name]
        row = int(np.prod(plan.shape[axis + 1 :], dtype=np.int64)) * file.dtype.itemsize
        with file.path.open("r+b") as out:
            for outer, part in enumerate(value if axis else value[None]):
                out.seek((outer * plan.shape[axis] + first) * row)
                out.write(np.ascontiguousarray(part, file.dtype).data)

    def finish(self) -> None:
        """Raises RefEngineError if a value did not come as planned."""
        for name, rows in self._done.items():
            expected = self._plan[name].shape[token_axis(name)]
            if rows != expected:
                raise RefEngineError(f"{name}: {rows} rows came, {expected} were planned")


def record(
    model: Model,
    ids: Sequence[int],
    wanted: Selection,
    folder: Path,
    *,
    plan: Sequence[Planned] | None = None,
    chunk: int = 128,
    fine: bool = True,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Raw]:
    """Run `ids` from an empty cache and write what is wanted below `folder`; returns the files in graph order.

    chunk: tokens in one pass. fine: also what fused operations hide, by running their composition. Raises
    RefEngineError for ids that the model cannot run.
    """
    spool = Spool(planned(model, ids, wanted, chunk, fine) if plan is None else plan, wanted, folder, fine)
    cache = model.new_cache(model.spec.n_ctx if len(ids) <= model.spec.n_ctx else model.spec.n_ctx_most)
    model.taps.append(spool)
    try:
        for part in passes(model, ids, chunk):
            model.forward(part, cache)
            advance(len(part))
    finally:
        model.taps.remove(spool)
    spool.finish()
    return spool.files


def facts_of(model: Model, ids: Sequence[int], wanted: Selection, fine: bool) -> Facts:
    """What a trace of this model says about itself."""
    return Facts(
        engine="ref-engine",
        model=f"{model.file.path.name}, {sum(w.nbytes for w in model.weights.values())} bytes of weights",
        architecture=model.spec.arch,
        backend=model.ops.name,
        activations=model.activations,
        path="composition" if fine else "fused",
        quantised=any(not w.is_plain for w in model.weights.values()),
        tokens=tuple(int(i) for i in ids),
        positions=wanted.positions,
        turns=turns_of(model),
        n_layers=len(model.spec.layers),
        causal=model.spec.causal,
    )


def turns_of(model: Model) -> dict[int, Turns]:
    """Each layer's rotary embedding, as the angles of its pairs at position 1."""
    found = {}
    for i, layer in enumerate(model.spec.layers):
        rope = getattr(layer.mixer, "rope", None)
        if rope is not None:
            name = rope.factors_at(model.n_ctx)
            cos, sin = rope_table(rope, np.array([1]), None if name is None else model.weights[name].f32())
            angles = np.arctan2(sin[0].astype(np.float64), cos[0])
            found[i] = Turns(rope.pairing, tuple(angles.tolist()))
    return found


def as_dump(source: str, files: Sequence[Raw], facts: Facts) -> Dump:
    return Dump(source, {f.name: Tensor(f.name, f.shape, f.read) for f in files}, facts)
