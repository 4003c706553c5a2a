"""Normalisation as a feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ref_engine.spec.parts import Presence, Rules, tensor


@dataclass(frozen=True)
class NormSpec:
    """One normalisation over the last axis; `name` is that of its tensors, without `.weight` and `.bias`.

    rms:   x / sqrt(mean(x**2) + eps)
    layer: (x - mean(x)) / sqrt(variance(x) + eps)
    """

    name: str
    eps: float
    kind: Literal["rms", "layer"] = "rms"
    weight: Presence = "must"
    bias: Presence = "no"
    suffix: str = ".weight"  # some old files name a norm's weight without it

    def rules(self, width: int, groups: int | None = None) -> Rules:
        """groups: one row of weights for each of so many heads."""
        shape = (width,) if groups is None else (groups, width)
        return tensor(f"{self.name}{self.suffix}", shape, self.weight) | tensor(f"{self.name}.bias", shape, self.bias)


def norm_rules(norm: NormSpec | None, width: int) -> Rules:
    return {} if norm is None else norm.rules(width)
