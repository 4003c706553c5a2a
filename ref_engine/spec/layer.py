"""A layer: a part that mixes tokens, a feed-forward part, and how they meet in the residual stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ref_engine.spec.depth import DepthSpec
from ref_engine.spec.hyper import HyperSpec
from ref_engine.spec.hyper_gated import GatedHyperSpec
from ref_engine.spec.ngram import NgramSpec
from ref_engine.spec.norm import NormSpec, norm_rules
from ref_engine.spec.parts import Memory, Part, Rules, tensor


@dataclass(frozen=True)
class LayerSpec:
    """serial:    x = x + post(mixer(norm(x))), then x = x + post(ffn(norm(x)))
    parallel:  x = x + mixer(norm(x)) + ffn(norm(x)); without an ffn_norm the FFN reads what the mixer reads

    Any of the norms may be missing, and so may either half. residual_scale multiplies what a half adds.
    recall, shift: before all this, the stream that left an earlier layer is added (-1: the embeddings), then a vector
    of the model. embedding_skip, exit_norm: after it, the embeddings times layer_output_scale are added, then comes a
    norm of the model (whose tensors have no `blk.N.`).
    """

    mixer: Part | None
    ffn: Part | None
    mixer_norm: NormSpec | None = None
    mixer_post_norm: NormSpec | None = None
    ffn_norm: NormSpec | None = None
    ffn_post_norm: NormSpec | None = None
    parallel: bool = False
    residual_scale: float | None = None
    blk: int | None = None  # whose `blk.N.` tensors it uses; None: those of its own place
    stream_name: str = "ffn_inp"  # llama.cpp's name for the stream between the halves
    recall: int | None = None
    shift: str | None = None
    embedding_skip: bool = False
    exit_norm: NormSpec | None = None
    kept: bool = False  # a later layer recalls the stream that leaves this one
    normed_residual: float | None = None  # a half is added to its normed input times this, not to the stream
    ffn_norm_name: str = "ffn_norm"  # llama.cpp's name for what the FFN reads
    # llama.cpp's names for other values of this layer, where they are not the usual ones; None: it has none
    names: Mapping[str, str | None] = field(default_factory=dict)
    depth: DepthSpec | None = None  # the halves read the streams of earlier layers too
    hyper: HyperSpec | GatedHyperSpec | None = None  # it runs over several streams
    ngrams: NgramSpec | None = None  # before all this, embeddings of several tokens are added to the streams

    @property
    def halves(self) -> tuple[Part, ...]:
        return tuple(part for part in (self.mixer, self.ffn) if part is not None)

    def rules(self, d_model: int) -> Rules:
        """Its tensors by their names without the `blk.N.` prefix."""
        rules: Rules = {}
        for part in self.halves:
            rules |= part.rules(d_model)
        for norm in (self.mixer_norm, self.mixer_post_norm, self.ffn_norm, self.ffn_post_norm):
            rules |= norm_rules(norm, d_model)
        rules |= {} if self.depth is None else self.depth.rules(d_model)
        rules |= {} if self.hyper is None else self.hyper.rules(d_model)
        rules |= {} if self.ngrams is None else self.ngrams.rules(d_model)
        return rules | tensor("layer_output_scale.weight", (1,), "must" if self.embedding_skip else "no")

    def memory(self) -> Memory:
        memories = [part.memory() for part in self.halves]
        memories += [] if self.ngrams is None else [self.ngrams.memory()]
        return Memory(
            rows={name: shape for m in memories for name, shape in m.rows.items()},
            states={name: shape for m in memories for name, shape in m.states.items()},
        )
