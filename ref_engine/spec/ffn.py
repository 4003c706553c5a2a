"""A dense feed-forward network as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.parts import NOTHING, Memory, Presence, Rules, linear


@dataclass(frozen=True)
class FfnSpec:
    """down(activation(gate x) * (up x)), or down(activation(up x)) without a gate.

    fused: gate and up are the two halves of the matrix `up`. up, gate, down: names of the tensors, without `.weight`.
    """

    width: int
    activation: str
    bias: Presence = "no"
    gated: bool = True
    fused: bool = False
    up: str = "ffn_up"
    gate: str = "ffn_gate"
    down: str = "ffn_down"

    def rules(self, d_model: int) -> Rules:
        rules = linear(self.up, (2 if self.fused else 1) * self.width, d_model, self.bias)
        if self.gated and not self.fused:
            rules |= linear(self.gate, self.width, d_model, self.bias)
        return rules | linear(self.down, d_model, self.width, self.bias)

    def memory(self) -> Memory:
        return NOTHING
