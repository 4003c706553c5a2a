"""Several parts side by side as one."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.parts import Memory, Part, Rules


@dataclass(frozen=True)
class SumSpec:
    """All parts read the same input, and what they give is added. names: llama.cpp's for what each gives."""

    parts: tuple[Part, ...]
    names: tuple[str, ...]

    def rules(self, d_model: int) -> Rules:
        return {name: rule for part in self.parts for name, rule in part.rules(d_model).items()}

    def memory(self) -> Memory:
        memories = [part.memory() for part in self.parts]
        return Memory(
            rows={name: shape for m in memories for name, shape in m.rows.items()},
            states={name: shape for m in memories for name, shape in m.states.items()},
        )
