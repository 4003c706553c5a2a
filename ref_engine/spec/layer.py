"""A layer: a part that mixes tokens, a feed-forward part, and how they meet in the residual stream."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.norm import NormSpec, norm_rules
from ref_engine.spec.parts import NOTHING, Memory, Part, Rules


@dataclass(frozen=True)
class LayerSpec:
    """serial:    x = x + post(mixer(norm(x))), then x = x + post(ffn(norm(x)))
    parallel:  x = x + mixer(norm(x)) + ffn(norm(x)); without an ffn_norm the FFN reads what the mixer reads

    Any of the norms may be missing, and so may either half. residual_scale multiplies what a half adds.
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
        return rules

    def memory(self) -> Memory:
        memories = [part.memory() for part in self.halves] or [NOTHING]
        return Memory(
            rows={name: shape for m in memories for name, shape in m.rows.items()},
            states={name: shape for m in memories for name, shape in m.states.items()},
        )
