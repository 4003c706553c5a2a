"""Writing GGUF files (version 3): a header made in memory, then the tensor data as a stream."""

import operator
import os
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ref_engine.errors import GGUFError
from ref_engine.files.cursor import MAX_HEADER_BYTES, MAX_NAME_BYTES, show, show_path
from ref_engine.files.encode import encode_string, encode_value
from ref_engine.files.header import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAX_DIMS,
    MAX_KEYS,
    MAX_TENSORS,
    align_up,
    check_alignment,
    tensor_bytes,
)
from ref_engine.files.types import GGMLType, GGUFValueType, ValueType

Chunk = bytes | bytearray | memoryview | npt.NDArray[np.generic]
TensorData = Chunk | Callable[[], Chunk | Iterable[Chunk]]

_NATURAL = {
    GGMLType.F32: "<f4",
    GGMLType.F16: "<f2",
    GGMLType.F64: "<f8",
    GGMLType.I8: "<i1",
    GGMLType.I16: "<i2",
    GGMLType.I32: "<i4",
    GGMLType.I64: "<i8",
    GGMLType.BF16: "<u2",
}


@dataclass(frozen=True)
class _Row:
    name: str
    shape: tuple[int, ...]
    type: GGMLType
    nbytes: int
    offset: int
    data: TensorData


def write_gguf(
    path: str | os.PathLike[str],
    metadata: Mapping[str, object],
    tensors: Iterable[tuple[str, Sequence[int], GGMLType, TensorData]],
    alignment: int | None = None,
    types: Mapping[str, ValueType] | None = None,
) -> None:
    """Write a GGUF file at `path`, whole or not at all.

    Args:
        metadata: keys and values, written in this order. `types` gives the GGUF type of any of them, as
            `GGUFFile.types` does; the others follow the rule at the top of `encode.py`.
        tensors: (name, shape in NumPy order, type, packed bytes), laid out in this order. The bytes are a
            buffer, or a function that returns one or an iterator over several. It is called when its turn to
            be written comes, so that a model larger than the memory can be written tensor by tensor. A NumPy
            array is uint8 or has the tensor type's own dtype (uint16 for BF16).
        alignment: of each tensor's data, in bytes. None: the metadata's `general.alignment`, or 32. One that
            is neither is added to the metadata.

    The file is written under a temporary name beside `path`, flushed to the disk and renamed, which replaces
    an older file. On any error, one raised by a data function too, the temporary file is removed and `path`
    is as before. Raises GGUFError for values, shapes or data that do not fit, and where writing fails.
    """
    target = Path(path)
    label = show_path(target)
    alignment, metadata, types = _with_alignment(metadata, types or {}, alignment, label)
    rows = _layout(tensors, alignment, label)
    header = _header(metadata, types, rows, label)
    with appearing(target) as file:
        _write(file, header, rows, alignment, label)


@contextmanager
def appearing(target: Path) -> Iterator[BinaryIO]:
    """A file to write that appears at `target` whole, or not at all: a temporary one beside it, synced and renamed.

    On any error the temporary file is removed. Raises GGUFError where writing fails.
    """
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):  # renamed: all went well
                temporary.unlink()
    except OSError as error:
        raise GGUFError(f"{show_path(target)}: cannot write: {error.strerror or error}") from error


def _with_alignment(
    metadata: Mapping[str, object], types: Mapping[str, ValueType], alignment: int | None, label: str
) -> tuple[int, dict[str, object], dict[str, ValueType]]:
    """The alignment to use, and metadata and types that state it where it is not the default."""
    metadata, types = dict(metadata), dict(types)
    stated = metadata.get(ALIGNMENT_KEY)
    if stated is not None and not isinstance(stated, int | np.integer):
        raise GGUFError(f"{label}: {ALIGNMENT_KEY} must be an integer")
    if alignment is None:
        alignment = DEFAULT_ALIGNMENT if stated is None else int(stated)
    elif stated is not None and stated != alignment:
        raise GGUFError(f"{label}: the alignment {alignment} contradicts {ALIGNMENT_KEY} = {stated}")
    check_alignment(alignment, label)
    if stated is not None or alignment != DEFAULT_ALIGNMENT:
        metadata[ALIGNMENT_KEY] = alignment
        types[ALIGNMENT_KEY] = GGUFValueType.UINT32
    return alignment, metadata, types


def _layout(
    tensors: Iterable[tuple[str, Sequence[int], GGMLType, TensorData]], alignment: int, label: str
) -> list[_Row]:
    rows: list[_Row] = []
    names: set[str] = set()
    offset = 0
    for name, dims, type, data in tensors:
        what = f"{label}: tensor {show(name)}"
        if name in names:
            raise GGUFError(f"{what} is there twice")
        names.add(name)
        if len(dims) > MAX_DIMS:
            raise GGUFError(f"{what} has {len(dims)} dimensions; at most {MAX_DIMS} are allowed")
        shape = tuple(operator.index(n) for n in dims)
        nbytes = tensor_bytes(shape, GGMLType(type), what)
        rows.append(_Row(name, shape, GGMLType(type), nbytes, offset, data))
        offset = align_up(offset + nbytes, alignment)
    return rows


def _header(metadata: Mapping[str, object], types: Mapping[str, ValueType], rows: Sequence[_Row], label: str) -> bytes:
    """Everything before the padding, held to the limits of the reader: what is written can be read."""
    if len(metadata) > MAX_KEYS or len(rows) > MAX_TENSORS:
        raise GGUFError(f"{label}: more than {MAX_KEYS} keys or {MAX_TENSORS} tensors")
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(rows), len(metadata))]
    for key, value in metadata.items():
        parts.append(_name(f"{label}: metadata key {show(key)}", key))
        parts.append(encode_value(f"{label}: metadata key {show(key)}", value, types.get(key)))
    for row in rows:
        parts.append(_name(f"{label}: tensor {show(row.name)}", row.name))
        dims = tuple(reversed(row.shape))
        parts.append(struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, row.type, row.offset))
    header = b"".join(parts)
    if len(header) > MAX_HEADER_BYTES:
        raise GGUFError(f"{label}: the header takes {len(header)} bytes, more than {MAX_HEADER_BYTES}")
    return header


def _name(what: str, name: str) -> bytes:
    encoded = encode_string(what, name)
    if not 0 < len(encoded) - 8 <= MAX_NAME_BYTES:
        raise GGUFError(f"{what} must be 1 to {MAX_NAME_BYTES} bytes long")
    try:
        encoded[8:].decode("utf-8")
    except UnicodeDecodeError:
        raise GGUFError(f"{what} is not valid UTF-8") from None
    return encoded


def _write(file: BinaryIO, header: bytes, rows: Sequence[_Row], alignment: int, label: str) -> None:
    file.write(header)
    written = len(header)
    for row in rows:
        written = _pad(file, written, alignment)
        what = f"{label}: tensor {show(row.name)}"
        left = row.nbytes
        for chunk in _chunks(row, what):
            left -= chunk.nbytes
            if left < 0:
                break
            file.write(chunk)
        if left:
            more = "too many bytes" if left < 0 else f"{left} bytes too few"
            raise GGUFError(f"{what} of {row.nbytes} bytes was given {more}")
        written += row.nbytes
    if rows:
        _pad(file, written, alignment)


def _pad(file: BinaryIO, written: int, alignment: int) -> int:
    padded = align_up(written, alignment)
    while written < padded:  # in pieces: an alignment may be large
        written += file.write(bytes(min(padded - written, 1 << 20)))
    return padded


def _chunks(row: _Row, what: str) -> Iterator[memoryview]:
    data = row.data() if callable(row.data) else row.data
    if isinstance(data, bytes | bytearray | memoryview | np.ndarray):
        data = (data,)
    for chunk in data:
        yield _bytes_of(chunk, row.type, what)


def _bytes_of(chunk: Chunk, type: GGMLType, what: str) -> memoryview:
    """The bytes of one buffer, without a copy where it is contiguous."""
    if isinstance(chunk, np.ndarray):
        if chunk.dtype != np.uint8 and chunk.dtype != np.dtype(_NATURAL.get(type, "u1")):
            raise GGUFError(f"{what} of type {type.name} was given an array of {chunk.dtype}")
        return np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
    if not isinstance(chunk, bytes | bytearray | memoryview):
        raise GGUFError(f"{what} was given {chunk.__class__.__name__} instead of bytes")
    view = memoryview(chunk)
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
