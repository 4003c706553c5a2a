"""Writing an importance matrix in the two formats that `read.py` describes, byte for byte as llama-imatrix does."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ModelError
from ref_engine.files.cursor import show
from ref_engine.files.types import ArrayType, GGMLType, GGUFValueType, ValueType
from ref_engine.files.writer import appearing, write_gguf
from ref_engine.imatrix.matrix import Entry, ImportanceMatrix
from ref_engine.imatrix.read import CHUNK_COUNT, CHUNK_SIZE, COUNTS, DATASETS, SUMS

Format = Literal["gguf", "dat"]
_TYPES: dict[str, ValueType] = {
    DATASETS: ArrayType(GGUFValueType.STRING),
    CHUNK_COUNT: GGUFValueType.UINT32,
    CHUNK_SIZE: GGUFValueType.UINT32,
}


def write_imatrix(path: str | os.PathLike[str], matrix: ImportanceMatrix, format: Format = "gguf") -> None:
    """Write a file at `path`, whole or not at all.

    A legacy file has no entry without tokens, and 1 for each input of experts without. Raises GGUFError where writing
    fails, ModelError for a matrix that was read from a legacy file (`merge` makes it an ordinary one).
    """
    if matrix.legacy:
        raise ModelError("an importance matrix of a legacy file does not say how many tokens it has seen")
    if format == "dat":
        with appearing(Path(path)) as file:
            for part in _legacy(matrix):
                file.write(part)
        return
    tensors = []
    for name in sorted(matrix.entries, key=lambda name: name.encode("utf-8", "surrogateescape")):
        entry = matrix.entries[name]
        n = entry.counts.size  # one row is a vector: ggml writes no axes of length one
        sums, counts = entry.by_count.astype(np.float32), entry.counts.astype(np.float32)[:, None]
        for suffix, values in ((SUMS, sums), (COUNTS, counts)):
            shape = values.shape if n > 1 else values.shape[1:]
            tensors.append((f"{name}{suffix}", shape, GGMLType.F32, np.ascontiguousarray(values)))
    metadata = {
        "general.type": "imatrix",
        DATASETS: list(matrix.datasets),
        CHUNK_COUNT: matrix.n_chunks,
        CHUNK_SIZE: matrix.chunk_size,
    }
    write_gguf(path, metadata, tensors, types=_TYPES)


def _legacy(matrix: ImportanceMatrix) -> list[bytes]:
    entries = {name: entry for name, entry in matrix.entries.items() if (entry.counts > 0).any()}
    parts = [_i32("the number of entries", len(entries))]
    for name in sorted(entries, key=lambda name: name.encode("utf-8", "surrogateescape")):
        entry, what = entries[name], f"entry {show(name)}"
        calls = -(-int(entry.counts.max()) // matrix.chunk_size)
        values = _times_calls(entry, calls)
        parts += [_text(name), _i32(what, calls), _i32(what, values.size), values.astype("<f4").tobytes()]
    return [*parts, _i32("the number of chunks", matrix.n_chunks), _text(next(reversed(matrix.datasets), ""))]


def _times_calls(entry: Entry, calls: int) -> NDArray[np.float32]:
    """Mean squares times the number of calls, in float32 as llama.cpp divides and multiplies."""
    counts = entry.counts.astype(np.float32)[:, None]
    seen = counts > 0
    means = np.where(seen, entry.by_count / np.where(seen, counts, np.float32(1)), np.float32(1))
    return (means * np.float32(calls)).reshape(-1)


def _i32(what: str, n: int) -> bytes:
    if n >= 1 << 31:
        raise ModelError(f"{what}: {n} is too large for a legacy file; --format gguf holds it")
    return struct.pack("<i", n)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    return struct.pack("<i", len(encoded)) + encoded
