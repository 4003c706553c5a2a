"""What of a model can be looked at."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.model import Model
from ref_engine.views.attention import n_heads
from ref_engine.views.experts import mixture


@dataclass(frozen=True)
class Shape:
    """n_heads, n_experts, n_used: for each layer, 0 where it has no attention map, or no experts."""

    architecture: str
    n_layers: int
    d_model: int
    n_heads: tuple[int, ...]
    n_experts: tuple[int, ...]
    n_used: tuple[int, ...]
    n_vocab: int
    context: int
    causal: bool

    @property
    def with_attention(self) -> tuple[int, ...]:
        return tuple(i for i, n in enumerate(self.n_heads) if n)

    @property
    def with_experts(self) -> tuple[int, ...]:
        return tuple(i for i, n in enumerate(self.n_experts) if n)


def shape(model: Model) -> Shape:
    spec, mixtures = model.spec, [mixture(layer) for layer in model.spec.layers]
    return Shape(
        architecture=spec.arch,
        n_layers=spec.n_layer,
        d_model=spec.d_model,
        n_heads=tuple(n_heads(layer) for layer in spec.layers),
        n_experts=tuple(0 if m is None else m.n_expert for m in mixtures),
        n_used=tuple(0 if m is None else m.n_used for m in mixtures),
        n_vocab=spec.n_vocab,
        context=model.n_ctx,
        causal=spec.causal,
    )
