"""Attention as a feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Presence, Rules, linear, tensor
from ref_engine.spec.rope import RopeSpec


@dataclass(frozen=True)
class AttentionSpec:
    """H query heads over K key/value heads, keys of width head_dim, values of width v_dim.

    Each token sees the keys at positions up to its own; with a `window` the last so many of them, its own included;
    with a `chunk` those of its own chunk of so many positions. causal=False: every token sees all of its sequence.
    """

    n_head: int
    n_head_kv: int
    head_dim: int
    scale: float  # of the scores, before the softmax
    rope: RopeSpec | None
    v_dim: int | None = None  # None: head_dim
    fused: bool = False  # one matrix attn_qkv for queries, keys and values
    scale_queries: bool = False  # the scale goes onto the queries instead, before the products
    window: int | None = None
    chunk: int | None = None
    causal: bool = True
    soft_cap: float | None = None
    alibi: float = 0.0  # largest slope exponent of ALiBi; 0: none
    sinks: Presence = "no"  # attn_sinks.weight (H,): a score that takes weight and gives nothing
    clamp: float = 0.0  # projections are clamped to +-clamp; 0: not
    q_norm: NormSpec | None = None
    k_norm: NormSpec | None = None
    norm_over: Literal["head", "heads", "all"] = "head"  # one weight for all heads, one for each, or across heads
    norm_after_rope: bool = False
    bias: Presence = "may"
    output_bias: Presence = "no"

    @property
    def value_dim(self) -> int:
        return self.head_dim if self.v_dim is None else self.v_dim

    def rules(self, d_model: int) -> Rules:
        h, k = self.n_head, self.n_head_kv
        q_width, k_width, v_width = h * self.head_dim, k * self.head_dim, k * self.value_dim
        out = h * self.value_dim
        if self.fused:
            rules = linear("attn_qkv", q_width + k_width + v_width, d_model, self.bias)
        else:
            rules = linear("attn_q", q_width, d_model, self.bias)
            rules |= linear("attn_k", k_width, d_model, self.bias)
            rules |= linear("attn_v", v_width, d_model, self.bias)
        rules |= linear("attn_output", d_model, out, self.output_bias)
        rules |= tensor("attn_sinks.weight", (h,), self.sinks)
        for norm, n in ((self.q_norm, h), (self.k_norm, k)):
            if norm is not None:
                width = n * self.head_dim if self.norm_over == "all" else self.head_dim
                rules |= norm.rules(width, n if self.norm_over == "heads" else None)
        return rules

    def memory(self) -> Memory:
        return Memory(rows={"k": (self.n_head_kv, self.head_dim), "v": (self.n_head_kv, self.value_dim)})
