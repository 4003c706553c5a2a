"""What a way of quantising costs: bytes, errors of the weights, and how far the model's predictions move on a text.

Each candidate is written as a file, read again as anybody would read it, compared with the original tensor by tensor,
and run beside it over the same windows of text (`divergence.py`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ref_engine.divergence import Divergence, ModelBase, Window, diverge, summary
from ref_engine.files import GGUFFile, open_gguf
from ref_engine.files.types import GGMLType, row_bytes
from ref_engine.mixture import FileType, Wishes
from ref_engine.model import Model
from ref_engine.quant.types import dequantize
from ref_engine.quantize_file import quantize_file
from ref_engine.quantize_plan import Change, Extras

_WEIGHTS_AT_A_TIME = 1 << 22


@dataclass(frozen=True)
class TensorError:
    """Of one tensor that changed. rmse: sqrt(mean squared error of its weights); size: sqrt(mean squared weight)."""

    name: str
    type: GGMLType
    n_weights: int
    nbytes: int
    rmse: float
    size: float

    @property
    def relative(self) -> float:
        """rmse / size; 0 for a tensor that is zero and stayed so."""
        return self.rmse / self.size if self.size else (0.0 if self.rmse == 0 else math.inf)


@dataclass(frozen=True)
class Outcome:
    """Of one candidate. nbytes: of all its tensors."""

    label: str
    changes: Sequence[Change]
    errors: Sequence[TensorError]
    divergence: Divergence

    @property
    def nbytes(self) -> int:
        return sum(change.new_bytes for change in self.changes)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / sum(change.n_weights for change in self.changes)


def relative_error(errors: Sequence[TensorError]) -> float:
    """Of several tensors as if they were one."""
    wrong = sum(error.n_weights * error.rmse**2 for error in errors)
    right = sum(error.n_weights * error.size**2 for error in errors)
    return math.sqrt(wrong / right) if right else math.nan


def compare_candidates(
    source: str | os.PathLike[str],
    file_type: FileType,
    candidates: Sequence[tuple[str, Wishes]],
    extras: Extras,
    windows: Sequence[Window],
    folder: Path,
    load: Callable[[Path], Model],
    *,
    allow_requantize: bool = False,
    advance: Callable[[str, int], None] = lambda label, n: None,
) -> Iterator[Outcome]:
    """One outcome after the other.

    folder: where a candidate's file lies until it has been measured. load: how models are loaded, the original's too.
    advance: called with a label and a number of tokens. Raises as `quantize_file`, `load` and `diverge`.
    """
    base = ModelBase(load(Path(source)))
    for label, wishes in candidates:
        path = folder / "candidate.gguf"
        try:
            changes = quantize_file(source, path, file_type, wishes, extras, allow_requantize=allow_requantize)
            with open_gguf(source) as before, open_gguf(path) as after:
                errors = [tensor_error(before, after, c) for c in changes if c.new_type is not c.old_type]
            rows = diverge(base, load(path), windows, _labelled(advance, label))
        finally:
            path.unlink(missing_ok=True)
        yield Outcome(label, changes, errors, summary(rows))


def _labelled(advance: Callable[[str, int], None], label: str) -> Callable[[int, float], None]:
    return lambda n, _: advance(label, n)


def tensor_error(before: GGUFFile, after: GGUFFile, change: Change) -> TensorError:
    """The errors of one tensor's weights, summed in float64."""
    columns = change.shape[-1]
    old = before.data(change.name).reshape(-1, row_bytes(change.old_type, columns))
    new = after.data(change.new_name).reshape(-1, row_bytes(change.new_type, columns))
    at_a_time = max(1, _WEIGHTS_AT_A_TIME // columns)
    wrong = right = 0.0
    for start in range(0, len(old), at_a_time):
        a = dequantize(old[start : start + at_a_time], change.old_type).astype(np.float64)
        b = dequantize(new[start : start + at_a_time], change.new_type)
        wrong += float(((b - a) ** 2).sum())
        right += float((a**2).sum())
        before.release(change.name)
    n = change.n_weights
    return TensorError(
        change.new_name, change.new_type, n, change.new_bytes, math.sqrt(wrong / n), math.sqrt(right / n)
    )
