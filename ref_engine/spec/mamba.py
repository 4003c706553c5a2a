"""Mamba 1 and 2 as features."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Presence, Rules, linear, tensor


@dataclass(frozen=True)
class MambaSpec:
    """Mamba 1: `inner` channels, each with a state of `state` numbers; steps, B and C are made of the convolved input.

    With n_head the channels are those of so many heads with one step and one decay each (PLaMo 2). Then the input
    projection gives gate and input head by head, and the selection gives B, C, dt instead of dt, B, C.
    """

    inner: int
    state: int
    conv: int
    rank: int  # features that the steps are made of
    n_head: int | None = None
    dt_norm: NormSpec | None = None
    b_norm: NormSpec | None = None
    c_norm: NormSpec | None = None
    conv_bias: Presence = "must"

    @property
    def heads(self) -> int:
        return self.inner if self.n_head is None else self.n_head

    def rules(self, d_model: int) -> Rules:
        rules = scale_rules() | linear("ssm_in", 2 * self.inner, d_model, "no")
        rules |= conv_rules(self.inner, self.conv, self.conv_bias)
        rules |= linear("ssm_x", self.rank + 2 * self.state, self.inner, "no")
        rules |= linear("ssm_dt", self.heads, self.rank, "must")
        rules |= tensor("ssm_a", (self.heads, self.state) if self.n_head is None else (self.heads,))
        rules |= tensor("ssm_d", (self.heads,)) | linear("ssm_out", d_model, self.inner, "no")
        for norm, width in ((self.dt_norm, self.rank), (self.b_norm, self.state), (self.c_norm, self.state)):
            rules |= {} if norm is None else norm.rules(width)
        return rules

    def memory(self) -> Memory:
        return ssm_memory(self.conv, self.inner, (self.state, self.heads, self.inner // self.heads))


@dataclass(frozen=True)
class Mamba2Spec:
    """Mamba 2: H heads over `inner` channels, states of `state` numbers, B and C shared by the heads of a group."""

    n_head: int
    inner: int
    state: int
    groups: int
    conv: int
    norm: NormSpec | None  # of each group's gated output
    conv_bias: Presence = "may"

    @property
    def conv_width(self) -> int:
        """Channels that are convolved: the input, B and C."""
        return self.inner + 2 * self.groups * self.state

    def rules(self, d_model: int) -> Rules:
        rules = scale_rules() | linear("ssm_in", self.inner + self.conv_width + self.n_head, d_model, "no")
        rules |= conv_rules(self.conv_width, self.conv, self.conv_bias)
        rules |= tensor("ssm_dt.bias", (self.n_head,)) | tensor("ssm_a", (self.n_head, 1))
        rules |= tensor("ssm_d", (self.n_head, 1)) | linear("ssm_out", d_model, self.inner, "no")
        return rules | ({} if self.norm is None else self.norm.rules(self.inner // self.groups, self.groups))

    def memory(self) -> Memory:
        return ssm_memory(self.conv, self.conv_width, (self.state, self.n_head, self.inner // self.n_head))


def scale_rules() -> Rules:
    """Factors on what the maps give."""
    return tensor("ssm_in.scale", (1,), "may") | tensor("ssm_out.scale", (1,), "may")


def conv_rules(width: int, conv: int, bias: Presence) -> Rules:
    return tensor("ssm_conv1d.weight", (width, conv)) | tensor("ssm_conv1d.bias", (width,), bias)


def ssm_memory(conv: int, width: int, state: tuple[int, int, int]) -> Memory:
    return Memory(states={"conv": (conv - 1, width), "ssm": state})
