"""Where the memory of a loaded model goes."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.model import Model
from ref_engine.plan import make_plan
from ref_engine.weights import UnpackCache, Weight

_PASS = 512  # tokens of a pass


@dataclass(frozen=True)
class MemoryPart:
    """kind: "weights" (pages of the mapped file), "made" (of weights, as it is now: unpacked or repacked), "caches"
    (of sequences, when they are full) or "scratch" (temporaries of a pass, an estimate)."""

    name: str
    kind: str
    nbytes: int


def memory(model: Model, sequences: int = 1, n_ctx: int | None = None) -> tuple[MemoryPart, ...]:
    """The parts that have any bytes. sequences, n_ctx: how many there may be, and how long; by default the model's."""
    n_ctx = n_ctx or model.n_ctx
    plan = make_plan(model.metadata, model.file.tensors, n_ctx)
    kernels = model.ops.name != "numpy"  # they do not write out the scores of a whole context
    short = make_plan(model.metadata, model.file.tensors, min(n_ctx, _PASS)) if kernels else plan
    rows = plan.cache[model.cache_type]
    unpacked, experts = _held(model)
    parts = [MemoryPart(part.name, "weights", part.nbytes) for part in plan.parts]
    parts += [
        MemoryPart("unpacked weights", "made", unpacked),
        MemoryPart("repacked weights", "made", _repacked(model)),
        MemoryPart("expert cache", "made", experts),
        MemoryPart("keys and values", "caches", sequences * rows),
        MemoryPart("recurrent states", "caches", sequences * plan.state),
        MemoryPart("a pass", "scratch", short.scratch),
    ]
    return tuple(part for part in parts if part.nbytes)


def _held(model: Model) -> tuple[int, int]:
    """Bytes of unpacked weights, and of what is made of experts within a bound of their own."""
    caches = {id(weight.cache): weight.cache for weight in model.weights.values()}
    bounded: UnpackCache | None = model.weights.expert_cache
    return sum(cache.held for cache in caches.values()), 0 if bounded is None else bounded.held


def _repacked(model: Model) -> int:
    """Bytes of the weights' interleaved rows that kernels have made so far, and keep."""
    return sum(_kept(weight) for weight in model.weights.values())


def _kept(weight: Weight) -> int:
    mine = sum(int(made.nbytes) for name, made in weight.kept.items() if name == "rows of 16")
    return mine + sum(_kept(expert) for expert in list(weight.kept.get("experts", {}).values()))
