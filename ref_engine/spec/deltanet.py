"""A gated delta net as a feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Rules, linear, tensor


@dataclass(frozen=True)
class DeltaNetSpec:
    """H heads over K query and key heads, all of width head_dim; one decay for each head (Yang et al. 2024).

    Queries, keys and values go through a convolution over `conv` tokens; what the heads give is normed and gated.
    """

    n_head: int
    n_head_kv: int
    head_dim: int
    conv: int
    norm: NormSpec  # of each head's output, before the gate
    l2_eps: float  # added to the squared lengths of queries and keys
    tiled: bool = False  # head h reads with query and key head h mod K, else h K / H rounded down
    mixed: bool = False  # one matrix ssm_in gives query, key, values and gates for each key head
    paired: bool = False  # one matrix ssm_ba gives corrections (beta) and decays (alpha) for each key head
    gate_by: Literal["silu", "sigmoid"] = "silu"  # what makes gates of attn_gate x

    @property
    def key_width(self) -> int:
        return self.n_head_kv * self.head_dim

    @property
    def value_width(self) -> int:
        return self.n_head * self.head_dim

    @property
    def conv_width(self) -> int:
        return 2 * self.key_width + self.value_width

    def rules(self, d_model: int) -> Rules:
        if self.mixed:
            rules = linear("ssm_in", self.conv_width + self.value_width, d_model, "no")
        else:
            rules = linear("attn_qkv", self.conv_width, d_model, "no")
            rules |= linear("attn_gate", self.value_width, d_model, "no")
        if self.paired:
            rules |= linear("ssm_ba", 2 * self.n_head, d_model, "no")
        else:
            rules |= linear("ssm_beta", self.n_head, d_model, "no") | linear("ssm_alpha", self.n_head, d_model, "no")
        for name in ("attn_qkv", "attn_gate", "ssm_in", "ssm_beta", "ssm_alpha", "ssm_out"):
            rules |= tensor(f"{name}.scale", (1,), "may" if f"{name}.weight" in rules or name == "ssm_out" else "no")
        rules |= tensor("ssm_conv1d.weight", (self.conv_width, self.conv))
        rules |= tensor("ssm_dt.bias", (self.n_head,)) | tensor("ssm_a", (self.n_head,))
        return rules | self.norm.rules(self.head_dim) | linear("ssm_out", d_model, self.value_width, "no")

    def memory(self) -> Memory:
        state = (self.head_dim, self.n_head, self.head_dim)
        return Memory(states={"conv": (self.conv - 1, self.conv_width), "delta": state})
