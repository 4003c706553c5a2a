"""All layers of a model in one compiled call: for which models there is one, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ref_engine.cache import Cache
from ref_engine.compat import native
from ref_engine.kernels.halves import Halves, has_map, has_norm, laid
from ref_engine.kernels.moe import known, mapped, places_of, routing, stacks_of
from ref_engine.kernels.ops import Kernels, as_f32
from ref_engine.reference import ffn
from ref_engine.reference.moe import Experts, experts_of
from ref_engine.reference.sums import F32
from ref_engine.spec import AttentionSpec, LayerSpec, MoeSpec, RopeSpec
from ref_engine.weights import LayerTensors, Weights


@dataclass(frozen=True)
class Mixture:
    """layer: whose tokens are counted."""

    layer: int
    n_expert: int
    experts: Experts


@dataclass(frozen=True)
class Layers:
    """See `ops.AllLayers`. attending: the layers whose keys and values the cache has; places: where those of each cache
    lie, found anew when its rows move."""

    kernels: Kernels
    compiled: native.Layers
    ropes: Sequence[RopeSpec]
    attending: Sequence[int]
    mixtures: Sequence[Mixture]
    places: WeakKeyDictionary[Cache, tuple[Mapping[Any, Any], native.Places]] = field(default_factory=WeakKeyDictionary)

    def __call__(
        self,
        x: F32,
        turns: Mapping[RopeSpec, tuple[F32, F32]],
        sequences: Sequence[tuple[Cache, NDArray[np.int64]]],
        counts: Callable[[int, int], NDArray[np.int64]],
        last: bool,
    ) -> F32 | None:
        shares = []
        for cache, positions in sequences:
            rows = cache.rows_for(positions.size)
            found = self.places.get(cache)
            if found is None or found[0] is not rows:
                bytes_of = [(rows[i, "k"].view(np.uint8), rows[i, "v"].view(np.uint8)) for i in self.attending]
                found = self.places[cache] = rows, native.Places(self.compiled, cache.type, bytes_of)
            shares.append((found[1], positions))
        ends = np.cumsum([positions.size for _, positions in sequences])
        n_out = ends.size if last and self.compiled.narrows else len(x)
        out: F32 = np.empty((n_out, x.shape[1]), np.float32)
        self.compiled.run(
            self.kernels.table,
            as_f32(x),
            [turns[rope] for rope in self.ropes],
            shares,
            [counts(mixture.layer, mixture.n_expert) for mixture in self.mixtures],
            self.fetch,
            out,
            self.kernels.n_threads,
        )
        return out[ends - 1] if last and n_out > ends.size else out

    def fetch(self, mixture: int, expert: int) -> None:
        """Repack an expert's matrices."""
        for w in stacks_of(self.mixtures[mixture].experts):
            if not w.is_plain:
                places_of(w).put(expert, self.kernels.packed(w.expert(expert)))


def all_layers(halves: Halves, layers: Sequence[LayerSpec], weights: Weights) -> Layers | None:
    """None where a layer has a part, or a way from one part to the next, that the kernels do not know."""
    compiled: list[Any] = []
    ropes: list[RopeSpec] = []
    turns, attending, mixtures = [], [], []
    for i, layer in enumerate(layers):
        tensors = weights.layer(i if layer.blk is None else layer.blk)
        if not only_halves(layer):
            return None
        if layer.mixer is not None:
            half = halves.attention_of(layer, tensors)
            if half is None:
                return None
            rope = layer.mixer.rope if isinstance(layer.mixer, AttentionSpec) else None
            if rope is not None and rope not in ropes:
                ropes.append(rope)
            turns.append(-1 if rope is None else ropes.index(rope))
            attending.append(i)
            compiled.append(half)
        if isinstance(layer.ffn, MoeSpec):
            mixture = mixture_half(halves, layer, layer.ffn, tensors)
            if mixture is None:
                return None
            compiled.append(mixture[0])
            mixtures.append(Mixture(i, layer.ffn.n_expert, mixture[1]))
        elif layer.ffn is not None:
            of_layer = halves.ffn_of(layer, tensors)
            if of_layer is None:
                return None
            compiled.append(of_layer)
    if not compiled:
        return None
    return Layers(halves.kernels, native.Layers(compiled, turns), ropes, attending, mixtures)


def only_halves(layer: LayerSpec) -> bool:
    """Whether a layer is x + half(x), then y + half(y), and nothing before, between or after."""
    beside = (layer.recall, layer.shift, layer.exit_norm, layer.depth, layer.hyper, layer.ngrams, layer.normed_residual)
    return all(x is None for x in beside) and not (layer.parallel or layer.embedding_skip or layer.kept)


def mixture_half(
    halves: Halves, layer: LayerSpec, m: MoeSpec, tensors: LayerTensors
) -> tuple[native.MoeHalf, Experts] | None:
    if not plain_mixture(m) or not has_map(tensors, m.routing.router):
        return None
    if not all(has_norm(tensors, norm) for norm in (layer.ffn_norm, layer.ffn_post_norm)):
        return None
    experts, r = experts_of(m, tensors), m.routing
    if not known(experts) or any(w.expert_cache is not None for w in stacks_of(experts)):
        return None
    half = native.MoeHalf(
        halves.map(tensors, r.router),
        mapped(experts.up),
        None if experts.gate is None else mapped(experts.gate),
        mapped(experts.down),
        min(m.n_used, m.n_expert),
        m.activation,
        m.constants if m.gated and m.activation in ffn.UNITS else (),
        m.fused,
        m.weigh_input,
        routing(r, None if r.bias is None else tensors.vector(r.bias)),
        laid(tensors, layer.ffn_norm),
        laid(tensors, layer.ffn_post_norm),
        layer.residual_scale,
    )
    return half, experts


def plain_mixture(m: MoeSpec) -> bool:
    """Whether it has nothing that the compiled half does not know."""
    r = m.routing
    beside = (m.norm, m.latent, m.chunk, m.shared, r.table)
    return m.reads == r.reads == "ffn" and all(x is None for x in beside) and r.gate in native.GATES
