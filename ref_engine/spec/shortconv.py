"""A gated short convolution as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.parts import NOTHING, Memory, Rules, linear, tensor


@dataclass(frozen=True)
class ShortConvSpec:
    """out(c * convolution(b * x)) over `conv` tokens, with b, c and x of one projection (Liquid AI 2025, LFM2).

    causal=False: the filter lies around its token, with as many tokens after it as before.
    """

    conv: int
    width: int
    causal: bool = True

    def rules(self, d_model: int) -> Rules:
        rules = linear("shortconv.in_proj", 3 * self.width, d_model, "no")
        rules |= tensor("shortconv.conv.weight", (self.width, self.conv))
        return rules | linear("shortconv.out_proj", d_model, self.width, "no")

    def memory(self) -> Memory:
        return Memory(states={"conv": (self.conv - 1, self.width)}) if self.causal else NOTHING
