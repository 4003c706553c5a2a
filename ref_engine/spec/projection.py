"""One matrix in place of a half of a layer, as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.parts import NOTHING, Memory, Rules, linear


@dataclass(frozen=True)
class ProjectionSpec:
    """y = W x, with the tensor `name.weight` (D, D); tokens are not mixed."""

    name: str

    def rules(self, d_model: int) -> Rules:
        return linear(self.name, d_model, d_model, "no")

    def memory(self) -> Memory:
        return NOTHING
