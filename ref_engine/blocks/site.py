"""What a layer is given besides its input: its tensors, the sequences of this pass, the operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.blocks.expert_load import ExpertLoad
from ref_engine.cache import Cache
from ref_engine.ops import Ops
from ref_engine.place import HOST
from ref_engine.reference.linear import Map
from ref_engine.reference.sums import F32
from ref_engine.spec import NormSpec, RopeSpec
from ref_engine.weights import Weight, Weights

LayerTap = Callable[[str, int | None, F32], F32]  # (name, layer, value) -> the value to go on with
RopeTables = Mapping[RopeSpec, tuple[F32, F32]]


@dataclass(frozen=True)
class Share:
    """One sequence's share of a pass: some rows of the stream, at their positions."""

    cache: Cache
    rows: slice
    positions: NDArray[np.int64]  # (rows,)


@dataclass(frozen=True)
class Pass:
    """What all layers of one forward pass share. The tokens of several sequences lie one after the other."""

    ops: Ops
    shares: tuple[Share, ...]
    ids: NDArray[np.int64]  # (T,) token ids
    ropes: RopeTables
    tap: LayerTap
    tracing: bool  # somebody wants the steps inside fused operations
    watched: bool = True  # somebody looks at all
    kept: dict[str, Any] = field(default_factory=dict)  # what a layer leaves for later layers of this pass
    expert_load: ExpertLoad = field(default_factory=ExpertLoad)

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """(T,) absolute positions of the tokens, each in its own sequence."""
        return np.concatenate([share.positions for share in self.shares])

    def each(self, run: Callable[[Share], F32]) -> F32:
        """`run` for each sequence on its own rows, the results one below the other."""
        parts = [run(share) for share in self.shares]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class Site:
    """One layer's place: the tensors `blk.{blk}.*`, the memory of layer `index`, and the pass.

    blk and index differ only where a model runs the same tensors several times.
    """

    weights: Weights
    blk: int
    index: int
    p: Pass
    entered: F32 | None = None  # (T, D), the stream at the start of the layer
    names: Mapping[str, str | None] = field(default_factory=dict)  # see LayerSpec

    @property
    def ops(self) -> Ops:
        return self.p.ops

    def __getitem__(self, name: str) -> Weight:
        """A tensor by its name without the `blk.N.` prefix."""
        return self.weights.layer(self.blk)[name]

    def __contains__(self, name: str) -> bool:
        return name in self.weights.layer(self.blk)

    def vector(self, name: str) -> F32 | None:
        """A small tensor as float32, or None where the file has none."""
        return self.weights.layer(self.blk).vector(name)

    def map(self, name: str) -> Map:
        """The weight of a linear map and its bias, if the file has one."""
        weight, bias, _ = self.weights.layer(self.blk).map(name)
        return weight, bias

    def linear(self, x: F32, name: str) -> F32:
        return self.linears(x, [name])[0]

    def linears(self, x: F32, names: Sequence[str]) -> list[F32]:
        """Several maps of one input. A map with a `name.scale` is multiplied by that number before its bias."""
        tensors = self.weights.layer(self.blk)
        maps = [tensors.map(name) for name in names]
        if all(scale is None for _, _, scale in maps):
            return self.ops.linears(x, [(weight, bias) for weight, bias, _ in maps])
        ys = self.ops.linears(x, [(weight, None) for weight, _, _ in maps])
        ys = [y if scale is None else y * scale for y, (_, _, scale) in zip(ys, maps, strict=True)]
        return [y if bias is None else y + bias for y, (_, bias, _) in zip(ys, maps, strict=True)]

    def lifted(self, tables: tuple[F32, ...]) -> tuple[F32, ...]:
        """What was computed on the host, where this layer's arrays are."""
        return tables if self.ops.place is HOST else tuple(self.ops.place.put(table) for table in tables)

    def tap(self, name: str, value: F32) -> F32:
        """Show a value to whoever traces, under llama.cpp's name; go on with what comes back."""
        if not self.p.watched:
            return value
        shown = self.names.get(name, name)
        return value if shown is None else self.p.tap(shown, self.index, value)

    def tap_if_named(self, name: str, value: F32) -> F32:
        """The same for a value that llama.cpp has no name for in most families."""
        return self.tap(name, value) if name in self.names else value

    def norm(self, x: F32, norm: NormSpec | None) -> F32:
        """x normalised; x itself where there is no norm."""
        if norm is None:
            return x
        return normalise(x, norm, self.vector(f"{norm.name}{norm.suffix}"), self.vector(f"{norm.name}.bias"), self.ops)


def normalise(x: F32, norm: NormSpec, weight: F32 | None, bias: F32 | None, ops: Ops) -> F32:
    """x: (..., D) -> (..., D), over the last axis."""
    if norm.kind == "layer":
        return ops.layer_norm(x, weight, bias, norm.eps)
    y = ops.rms_norm(x, weight, norm.eps)
    return y if bias is None else y + bias


def model_norm(x: F32, norm: NormSpec, weights: Weights, ops: Ops) -> F32:
    """A norm whose tensors belong to the model, not to a layer: (..., D) -> (..., D)."""
    names = (f"{norm.name}{norm.suffix}", f"{norm.name}.bias")
    weight, bias = (weights[name].f32() if name in weights else None for name in names)
    return normalise(x, norm, weight, bias, ops)


def stream_after(layer: int) -> str:
    """Under which name `Pass.kept` has the stream that left a layer; -1: the one that enters the first."""
    return f"stream after {layer}"
