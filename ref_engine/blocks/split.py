"""A model whose first layers run on the host and whose others run on a device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ref_engine.blocks.site import Pass
from ref_engine.ops import Ops
from ref_engine.place import moved
from ref_engine.reference.sums import F32
from ref_engine.spec import ModelSpec


@dataclass(frozen=True)
class Split:
    """Layers whose tensors are `blk.N.` with N < first run on `host`; the others, and the output, on the model's own.

    A model that runs the same tensors several times has them in one place.
    """

    first: int
    host: Ops


def n_layers(spec: ModelSpec) -> int:
    """How many layers the file has tensors for."""
    return 1 + max((i if layer.blk is None else layer.blk for i, layer in enumerate(spec.layers)), default=-1)


def ops_of_layers(spec: ModelSpec, ops: Ops, split: Split | None) -> list[Ops]:
    """Who computes each layer."""
    if split is None:
        return [ops] * len(spec.layers)
    numbers = [i if layer.blk is None else layer.blk for i, layer in enumerate(spec.layers)]
    return [split.host if number < split.first else ops for number in numbers]


def carried_over(x: F32, p: Pass, ops: Ops) -> tuple[F32, Pass]:
    """The stream (T, D), what layers left for later ones, and the tables, where `ops` has its arrays."""
    place = ops.place
    p.kept.update({key: moved(value, place) for key, value in p.kept.items()})
    ropes = {rope: moved(tables, place) for rope, tables in p.ropes.items()}
    there: F32 = moved(x, place)
    return there, replace(p, ops=ops, ropes=ropes)
