"""Attention as a feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ref_engine.spec.indexer import BlockIndexSpec, MeanIndexSpec
from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Presence, Rules, linear, tensor
from ref_engine.spec.rope import RopeSpec


@dataclass(frozen=True)
class Temperature:
    """Queries grow with their position: times ln(floor((position + offset) / step) + 1) * scale + 1 (Llama 4)."""

    scale: float
    step: int
    offset: float = 0.0


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
    # one weight for all heads, one for each head, across heads, or a single number for each head
    norm_over: Literal["head", "heads", "all", "gain"] = "head"
    norm_after_rope: bool = False
    bias: Presence = "may"
    output_bias: Presence = "no"
    # attn_gate: what the heads mix is multiplied by the sigmoid of a map of the layer's input, a number for each head
    # or for each feature; "query": attn_q gives it, for each head after its query
    gate: Literal["no", "head", "feature", "query"] = "no"
    temperature: Temperature | None = None
    split_bias: bool = False  # a fused matrix with separate biases for queries, keys and values
    # each group of heads, or all of them, attends to the tokens of the blocks that it chooses
    index: BlockIndexSpec | MeanIndexSpec | None = None
    gate_by: Literal["sigmoid", "softplus"] = "sigmoid"  # what makes gates of the map attn_gate
    output_scale: float | None = None  # factor on what attn_output gives
    spare_heads: bool = False  # a fused matrix has rows for H key and value heads; those behind K of each are not used
    window_behind: bool = False  # with causal=False: the window bounds the past alone, else each side has half of it

    @property
    def value_dim(self) -> int:
        return self.head_dim if self.v_dim is None else self.v_dim

    @property
    def query_dim(self) -> int:
        """What attn_q gives for a head."""
        return 2 * self.head_dim if self.gate == "query" else self.head_dim

    @property
    def fused_kv_heads(self) -> int:
        """For how many key heads, and as many value heads, a fused matrix has rows."""
        return self.n_head if self.spare_heads else self.n_head_kv

    def rules(self, d_model: int) -> Rules:
        h, k = self.n_head, self.n_head_kv
        q_width, k_width, v_width = h * self.query_dim, k * self.head_dim, k * self.value_dim
        out = h * self.value_dim
        if self.fused:
            wide = q_width + (self.head_dim + self.value_dim) * self.fused_kv_heads
            rules = linear("attn_qkv", wide, d_model, "no" if self.split_bias else self.bias)
        else:
            rules = linear("attn_q", q_width, d_model, self.bias)
            rules |= linear("attn_k", k_width, d_model, self.bias)
            rules |= linear("attn_v", v_width, d_model, self.bias)
        if self.split_bias:
            for name, width in (("attn_q", q_width), ("attn_k", k_width), ("attn_v", v_width)):
                rules |= tensor(f"{name}.bias", (width,))
        if self.gate in ("head", "feature"):
            rules |= linear("attn_gate", h if self.gate == "head" else out, d_model, "no")
        rules |= linear("attn_output", d_model, out, self.output_bias)
        for name in (("attn_qkv",) if self.fused else ("attn_q", "attn_k", "attn_v")) + ("attn_output",):
            rules |= tensor(f"{name}.scale", (1,), "may")
        rules |= tensor("attn_sinks.weight", (h,), self.sinks)
        for norm, n in ((self.q_norm, h), (self.k_norm, k)):
            if norm is not None:
                width = {"all": n * self.head_dim, "gain": 1}.get(self.norm_over, self.head_dim)
                rules |= norm.rules(width, n if self.norm_over in ("heads", "gain") else None)
        if self.index is not None:
            rules |= self.index.rules(d_model)
        return rules

    def memory(self) -> Memory:
        rows: dict[str, tuple[int, ...]] = {
            "k": (self.n_head_kv, self.head_dim),
            "v": (self.n_head_kv, self.value_dim),
        }
        if self.index is not None:
            rows |= self.index.memory().rows
        return Memory(rows)
