"""Lightning attention as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Rules, linear


@dataclass(frozen=True)
class LightningSpec:
    """Linear attention of H heads, each of which forgets at a rate of its own, normed and gated (Qin et al. 2024).

    Head by head, attn_qkv gives a query, a key and a value. slopes: minus the logarithm of what a head keeps from one
    token to the next.
    """

    n_head: int
    head_dim: int
    slopes: tuple[float, ...]  # (H,)
    norm: NormSpec  # across all heads

    def rules(self, d_model: int) -> Rules:
        width = self.n_head * self.head_dim
        rules = linear("attn_qkv", 3 * width, d_model, "no") | linear("attn_gate", width, d_model, "no")
        return rules | self.norm.rules(width) | linear("attn_output", d_model, width, "no")

    def memory(self) -> Memory:
        return Memory(states={"kv": (self.head_dim, self.n_head, self.head_dim)})
