"""A dense feed-forward network as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.parts import NOTHING, Memory, Presence, Rules, linear, tensor


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
    constants: tuple[float, ...] = ()  # of the activation, see reference/ffn.py
    scales: Presence = "no"  # a factor on each map's result, bias included, `ffn_up.scale` (1,)
    divisors: Presence = "no"  # ffn.act.scales (F,): what the activation gives is divided by them (without a gate)

    def rules(self, d_model: int) -> Rules:
        rules = linear(self.up, (2 if self.fused else 1) * self.width, d_model, self.bias)
        if self.gated and not self.fused:
            rules |= linear(self.gate, self.width, d_model, self.bias)
        rules |= linear(self.down, d_model, self.width, self.bias)
        for name in (self.up, self.gate, self.down) if self.gated and not self.fused else (self.up, self.down):
            rules |= tensor(f"{name}.scale", (1,), self.scales)
        return rules | tensor("ffn.act.scales", (self.width,), self.divisors)

    def memory(self) -> Memory:
        return NOTHING


@dataclass(frozen=True)
class ActivationSpec:
    """An activation and no weights: what is left of a network whose tensors a family does not use."""

    activation: str

    def rules(self, d_model: int) -> Rules:
        return {}

    def memory(self) -> Memory:
        return NOTHING
