"""Reading an importance matrix: a .gguf of today's llama-imatrix, or a legacy .dat, which is

    entries i32 (at least one)
    entries times:   name length i32 | name | calls i32 | values i32 | values float32: mean square times calls
    perhaps:         chunks i32 | dataset length i32 | dataset

A .gguf holds `NAME.in_sum2` (sums of squares) and `NAME.counts`, both F32, and says `imatrix.datasets`,
`imatrix.chunk_count` and `imatrix.chunk_size`. Source: common/imatrix-loader.cpp of llama.cpp.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ref_engine.errors import ModelError
from ref_engine.files.cursor import MAX_NAME_BYTES, Cursor, show, show_path
from ref_engine.files.gguf import GGUFFile, map_file, open_gguf
from ref_engine.files.types import GGMLType
from ref_engine.imatrix.matrix import Entry, ImportanceMatrix

DATASETS, CHUNK_COUNT, CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
SUMS, COUNTS = ".in_sum2", ".counts"
_LARGEST_COUNT = 2.0**53


def read_imatrix(path: str | os.PathLike[str]) -> ImportanceMatrix:
    """Raises GGUFError or ModelError, one line that names the file, for anything that is no importance matrix."""
    label = show_path(Path(path))
    with map_file(Path(path)) as data:
        if data[:4] != b"GGUF":
            return _read_legacy(Cursor(data, label))
    with open_gguf(path) as opened:
        return _read_gguf(opened, label)


def _read_gguf(file: GGUFFile, label: str) -> ImportanceMatrix:
    missing = [key for key in (DATASETS, CHUNK_COUNT, CHUNK_SIZE) if key not in file.metadata]
    if missing:
        raise ModelError(f"{label}: is not an importance matrix: {missing[0]} is missing")
    datasets = file.metadata[DATASETS]
    if not isinstance(datasets, list) or not all(isinstance(name, str) for name in datasets):
        raise ModelError(f"{label}: {DATASETS} is not a list of names")
    n_chunks, chunk_size = (file.metadata.integer(key, label) or 0 for key in (CHUNK_COUNT, CHUNK_SIZE))
    entries = {}
    names = [name for name in file.tensors if name.endswith((SUMS, COUNTS))]
    for name in dict.fromkeys(name.removesuffix(SUMS).removesuffix(COUNTS) for name in names):
        entries[name] = _entry(file, name, label)
    if not entries:
        raise ModelError(f"{label}: the importance matrix has no entries")
    return ImportanceMatrix(entries, datasets, n_chunks, chunk_size)


def _entry(file: GGUFFile, name: str, label: str) -> Entry:
    what = f"{label}: entry {show(name)}"
    for part in (name + SUMS, name + COUNTS):
        if part not in file.tensors:
            raise ModelError(f"{what} has no {show(part)}")
        if file.tensors[part].type is not GGMLType.F32:
            raise ModelError(f"{what}: {show(part)} is {file.tensors[part].type.name}, expected F32")
    sums, counts = (file.data(name + part).view("<f4").copy() for part in (SUMS, COUNTS))
    if sums.size % counts.size:
        raise ModelError(f"{what} has {sums.size} values for {counts.size} counts")
    if not (np.isfinite(counts).all() and (np.abs(counts) < _LARGEST_COUNT).all()):
        raise ModelError(f"{what} has a count that is none")
    return Entry(sums, np.rint(counts).astype(np.int64))


def _read_legacy(cursor: Cursor) -> ImportanceMatrix:
    cursor.end = len(cursor.data)
    n_entries = _i32(cursor, "the number of entries")
    if not 1 <= n_entries <= len(cursor.data) // 16:  # an entry takes no less
        cursor.fail("is not an importance matrix, neither a GGUF file nor a legacy one")
    entries: dict[str, Entry] = {}
    for i in range(n_entries):
        name = _text(cursor, f"the name of entry {i + 1}")
        what = f"entry {show(name)}"
        if name in entries:
            cursor.fail(f"{what} is there twice")
        calls, n_values = _i32(cursor, f"the calls of {what}"), _i32(cursor, f"the size of {what}")
        if n_values < 1:
            cursor.fail(f"{what} has {n_values} values")
        values = np.frombuffer(cursor.take(4 * n_values, what), "<f4").copy()
        entries[name] = Entry(values, np.array([calls], np.int64))
    n_chunks, datasets = 0, []
    if cursor.pos < cursor.end:
        n_chunks = _i32(cursor, "the number of chunks")
    if cursor.pos < cursor.end:
        datasets = [name for name in [_text(cursor, "the dataset")] if name]
    return ImportanceMatrix(entries, datasets, n_chunks, 0, legacy=True)


def _i32(cursor: Cursor, what: str) -> int:
    return cursor.unpack("<i", what)[0]


def _text(cursor: Cursor, what: str) -> str:
    nbytes = _i32(cursor, f"the length of {what}")
    if not 0 <= nbytes <= MAX_NAME_BYTES:
        cursor.fail(f"{what} is {nbytes} bytes long; at most {MAX_NAME_BYTES} are allowed")
    return cursor.take(nbytes, what).decode("utf-8", "surrogateescape")
