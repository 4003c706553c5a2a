"""Who is asked for logits: a backend of ours, or a program that reads a GGUF file and token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ref_engine.reference.sums import F32


class LogitsEngine(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def exact(self) -> bool:
        """Whether products are known to be of the weights as they are, with nothing rounded to 8 bits."""
        ...

    def logits(self, model: Path, ids: Sequence[int], n_vocab: int, n_ctx: int | None) -> F32:
        """(T,) token ids from an empty cache -> (T, n_vocab) float32. n_ctx: room to make, where it matters.

        Raises RefEngineError where there are none, or of another size.
        """
        ...
