"""Kimi delta attention as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Presence, Rules, linear, tensor


@dataclass(frozen=True)
class KdaSpec:
    """H heads of width head_dim, for keys and values alike; a decay for each feature of the keys.

    Queries, keys and values go through a convolution over `conv` tokens. With f the decay projection and A > 0:
    log decay = -A softplus(f + dt), or with a `bound` bound * sigmoid(A (f + dt)).
    """

    n_head: int
    head_dim: int
    conv: int
    norm: NormSpec  # of each head's output, before the gate
    l2_eps: float  # added to the squared lengths of queries and keys
    bound: float | None = None  # least logarithm of a decay
    negated: bool = True  # ssm_a holds -A
    decay: tuple[str, ...] = ("ssm_f_a", "ssm_f_b")  # one full matrix, or two of rank head_dim
    gate: tuple[str, ...] = ("ssm_g_a", "ssm_g_b")  # the same
    fused: bool = False  # one matrix attn_qkv
    bias: Presence = "may"  # of the projections to queries, keys and values: llama.cpp takes such files, and ignores it
    flat: bool = False  # ssm_a is (H,) instead of (H, 1)

    @property
    def width(self) -> int:
        return self.n_head * self.head_dim

    def rules(self, d_model: int) -> Rules:
        width = self.width
        if self.fused:
            rules = linear("attn_qkv", 3 * width, d_model, self.bias)
        else:
            rules = {}
            for name in ("attn_q", "attn_k", "attn_v"):
                rules |= linear(name, width, d_model, self.bias)
        for name in "qkv":
            rules |= tensor(f"ssm_conv1d_{name}.weight", (width, 1, self.conv))
        for names in (self.decay, self.gate):
            widths = [d_model, *[self.head_dim] * (len(names) - 1), width]
            for name, n_in, n_out in zip(names, widths, widths[1:], strict=False):
                rules |= linear(name, n_out, n_in, "no")
        rules |= linear("ssm_beta", self.n_head, d_model, "no")
        rules |= tensor("ssm_a", (self.n_head,) if self.flat else (self.n_head, 1)) | tensor("ssm_dt.bias", (width,))
        return rules | self.norm.rules(self.head_dim) | linear("attn_output", d_model, width, "no")

    def memory(self) -> Memory:
        return Memory(
            states={"conv": (self.conv - 1, 3 * self.width), "delta": (self.head_dim, self.n_head, self.head_dim)}
        )
