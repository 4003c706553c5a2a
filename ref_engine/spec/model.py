"""A whole model as features, and the tensors that they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from ref_engine.spec.hyper import StreamsSpec
from ref_engine.spec.layer import LayerSpec
from ref_engine.spec.norm import NormSpec, norm_rules
from ref_engine.spec.parts import Presence, Rules, TensorRule, tensor
from ref_engine.spec.rope import RopeSpec
from ref_engine.spec.sum import SumSpec


@dataclass(frozen=True)
class ModelSpec:
    """x = embedding (times its scale, plus a position embedding, normalised), the layers, a norm, and the output
    matrix: logits = soft_cap(scale * (W x + bias))."""

    arch: str  # general.architecture, for display
    d_model: int
    n_vocab: int
    n_ctx_train: int
    n_ctx: int  # context length to run at
    n_ctx_most: int  # context length for a prompt that does not fit n_ctx
    layers: tuple[LayerSpec, ...]
    output_norm: NormSpec | None
    tied: bool  # the embedding matrix is also the output matrix
    embedding_scale: float | None = None
    embedding_norm: NormSpec | None = None
    position_embedding: bool = False  # a learned vector for each position, position_embd.weight
    output_bias: Presence = "no"
    logit_scale: float | None = None
    final_soft_cap: float | None = None
    causal: bool = True  # False: every token sees the whole sequence, so a longer one is computed anew
    ignored: tuple[str, ...] = ()  # patterns of tensors that may be in the file and are not used here
    embedding: str = "token_embd.weight"
    n_output: int | None = None  # rows of the output matrix, which score the last tokens; None: it scores all
    streams: StreamsSpec | None = None  # the layers run over several residual streams

    @property
    def n_layer(self) -> int:
        return len(self.layers)

    @property
    def output(self) -> str:
        return self.embedding if self.tied else "output.weight"

    @cached_property
    def ropes(self) -> frozenset[RopeSpec]:
        """Every way of turning that the layers ask for."""
        halves = (part for layer in self.layers for part in layer.halves)
        parts = (inner for part in halves for inner in (part.parts if isinstance(part, SumSpec) else (part,)))
        found = (getattr(part, "rope", None) for part in parts)
        return frozenset(rope for rope in found if isinstance(rope, RopeSpec))

    def is_ignored(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.ignored)


def tensor_rules(spec: ModelSpec) -> Rules:
    """Every tensor that the features ask for or allow, by GGUF name."""
    d = spec.d_model
    n_output = spec.n_output or spec.n_vocab
    rules = {spec.embedding: TensorRule((spec.n_vocab, d)), spec.output: TensorRule((n_output, d))}
    rules |= norm_rules(spec.output_norm, d) | norm_rules(spec.embedding_norm, d)
    rules |= tensor("output.bias", (n_output,), spec.output_bias)
    rules |= {} if spec.streams is None else spec.streams.rules(d)
    if spec.position_embedding:
        rules |= tensor("position_embd.weight", (spec.n_ctx_train, d))
    for i, layer in enumerate(spec.layers):
        blk = i if layer.blk is None else layer.blk
        rules |= {f"blk.{blk}.{name}": rule for name, rule in layer.rules(d).items()} | norm_rules(layer.exit_norm, d)
        rules |= {} if layer.depth is None else layer.depth.model_rules(d)
        rules |= {} if layer.ngrams is None else layer.ngrams.model_rules()
        if layer.shift is not None:
            rules[layer.shift] = TensorRule((d,))
    for rope in spec.ropes:
        for factors in (rope.factors, rope.long_factors):
            if factors is not None:
                rules[factors] = TensorRule((rope.n_rot // 2,))
    return rules
