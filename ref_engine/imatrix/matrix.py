"""What an importance matrix is, and how several become one.

For each matrix of a model: the sum over many tokens of the square of each of its inputs, and of how many tokens. The
mean square of input j says what an error in column j of the matrix costs. A stack of experts has a row of sums and a
count for each expert; another stack of matrices that all tokens pass has a row for each, and one count.
Source: `IMatrixCollector` of llama.cpp's tools/imatrix, `load_imatrix` of its tools/quantize.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ModelError
from ref_engine.files.cursor import show
from ref_engine.quant.blocks import F32


@dataclass(frozen=True, eq=False)
class Entry:
    """Of one tensor. sums: float32 (all its rows of inputs, one after the other,), counts: int64 (C,), C | len(sums).

    In a legacy file `sums` are the mean squares times the one count, which is a number of chunks, not of tokens.
    """

    sums: F32
    counts: NDArray[np.int64]

    @property
    def by_count(self) -> F32:
        """(C, n): the sums that belong to each count."""
        return self.sums.reshape(self.counts.size, -1)

    @property
    def n_unused(self) -> int:
        """Experts that no token came to."""
        return int((self.counts <= 0).sum())


@dataclass(frozen=True)
class ImportanceMatrix:
    """entries: by tensor name. datasets: the texts, by their file names. n_chunks: pieces of text that were read,
    chunk_size: tokens in each (0: a legacy file does not say)."""

    entries: Mapping[str, Entry]
    datasets: Sequence[str]
    n_chunks: int
    chunk_size: int
    legacy: bool = False

    def importance(self, name: str) -> F32:
        """What an error in each column costs: mean squares, float32, flat. Experts never used: 1 everywhere.

        Raises ModelError for values that are not finite or are negative.
        """
        entry = self.entries[name]
        if self.legacy:
            n = np.float32(max(int(entry.counts[0]), 1))
            values: F32 = entry.sums / n
        else:
            counts = entry.counts.astype(np.float32)[:, None]
            values = np.where(counts > 0, entry.by_count / np.maximum(counts, np.float32(1)), np.float32(1)).reshape(-1)
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ModelError(f"importance matrix: entry {show(name)} has a value that is negative or not finite")
        return values

    def chosen(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> ImportanceMatrix:
        """Only the entries whose names contain one of `include` (where given) and none of `exclude`."""
        kept = {
            name: entry
            for name, entry in self.entries.items()
            if (not include or any(part in name for part in include)) and not any(part in name for part in exclude)
        }
        return ImportanceMatrix(kept, self.datasets, self.n_chunks, self.chunk_size, self.legacy)


def merge(parts: Sequence[ImportanceMatrix], chunk_size: int) -> ImportanceMatrix:
    """Sums and counts of all parts added up. chunk_size: tokens in a chunk, of the result and of legacy parts.

    Raises ModelError, naming the entry, where two parts disagree about the sizes of a tensor.
    """
    sums: dict[str, F32] = {}
    counts: dict[str, NDArray[np.int64]] = {}
    for part in parts:
        for name, entry in part.entries.items():
            factor = np.float32(chunk_size) if part.legacy else np.float32(1)
            new_counts = entry.counts * chunk_size if part.legacy else entry.counts
            if name not in sums:
                sums[name], counts[name] = entry.sums * factor, new_counts
                continue
            if sums[name].size != entry.sums.size:
                sizes = f"{sums[name].size} and {entry.sums.size} values"
                raise ModelError(f"importance matrices: entry {show(name)} has {sizes}, so they are not of one model")
            counts[name] = _added(name, counts[name], new_counts)
            sums[name] = sums[name] + entry.sums * factor
    entries = {name: Entry(sums[name], counts[name]) for name in sums}
    datasets = [dataset for part in parts for dataset in part.datasets]
    return ImportanceMatrix(entries, datasets, whole_chunks(entries, chunk_size), chunk_size)


def whole_chunks(entries: Mapping[str, Entry], chunk_size: int) -> int:
    """How many chunks the tensor that saw most tokens has seen."""
    return max((int(entry.counts.max()) for entry in entries.values()), default=0) // chunk_size


def _added(name: str, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """One count stands for all matrices of a stack."""
    if a.size != b.size and 1 not in (a.size, b.size):
        raise ModelError(f"importance matrices: entry {show(name)} has counts for {a.size} and for {b.size} matrices")
    return a + b


def rows_of(entry_size: int, shape: Sequence[int]) -> bool:
    """Whether an entry of so many values fits a tensor of this NumPy shape: one row of inputs for each matrix."""
    return entry_size == math.prod(shape[:-2]) * shape[-1]
