"""The header of one GGUF file: version, metadata and tensor table, each checked against the file's size."""

import math
import mmap
from dataclasses import dataclass
from types import MappingProxyType

from ref_engine.errors import GGUFError
from ref_engine.files.cursor import Cursor, show
from ref_engine.files.foreign import SNIFF_BYTES, describe
from ref_engine.files.types import REMOVED, GGMLType, GGUFValueType, ValueType, row_bytes
from ref_engine.files.values import Budget, Metadata, read_value

ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16


@dataclass(frozen=True)
class TensorInfo:
    """One row of the tensor table.

    `shape` is in NumPy's order (slowest axis first, the reverse of the file's); `nbytes` counts the packed
    bytes; `offset` is where they begin in the file of shard number `shard`.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    nbytes: int
    offset: int
    shard: int = 0

    @property
    def n_weights(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What stands before the tensor data. `data_start` is the byte at which the data section begins."""

    version: int
    metadata: Metadata
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_start: int


def parse_header(data: mmap.mmap | bytes, label: str, shard: int = 0) -> Header:
    """Parse the header of the file mapped in `data`.

    `label` (the file's name) begins every error. Raises GGUFError for anything that is not a sound GGUF file
    of version 2 or 3, little-endian. Reads no tensor data.
    """
    cursor = Cursor(data, label)
    version = _read_version(cursor)
    n_tensors = cursor.u64("the tensor count")
    n_keys = cursor.u64("the metadata count")
    if n_keys > MAX_KEYS:
        cursor.fail(f"claims {n_keys} metadata keys; at most {MAX_KEYS} are accepted")
    if n_tensors > MAX_TENSORS:
        cursor.fail(f"claims {n_tensors} tensors; at most {MAX_TENSORS} are accepted")
    metadata = _read_metadata(cursor, n_keys)
    alignment = _alignment(cursor, metadata)
    rows = [_read_row(cursor, index) for index in range(n_tensors)]
    data_start = align_up(cursor.pos, alignment)
    tensors = tuple(
        TensorInfo(name, shape, type, nbytes, data_start + offset, shard) for name, shape, type, nbytes, offset in rows
    )
    _check_placement(cursor, tensors, data_start, alignment)
    return Header(version, metadata, tensors, alignment, data_start)


def align_up(position: int, alignment: int) -> int:
    """The first multiple of `alignment` at or after `position`."""
    return -(-position // alignment) * alignment


def _read_version(cursor: Cursor) -> int:
    head = cursor.data[:SNIFF_BYTES]
    if not head:
        cursor.fail("the file is empty")
    if not head.startswith(b"GGUF"):
        if b"GGUF".startswith(head):
            cursor.fail(f"truncated: the file has only {len(head)} bytes")
        cursor.fail(f"not a GGUF file; its content is {describe(head, len(cursor.data))}")
    cursor.pos = 4
    version = cursor.u32("the version")
    # A small number with its bytes swapped has nothing in the low half.
    if version and version & 0xFFFF == 0:
        cursor.fail("the file is big-endian; only little-endian GGUF files can be read")
    if version == 1:
        cursor.fail("GGUF version 1 is not supported; convert the model again to get version 3")
    if version not in (2, 3):
        cursor.fail(f"GGUF version {version} is not known; versions 2 and 3 are")
    return version


def _read_metadata(cursor: Cursor, n_keys: int) -> Metadata:
    types: dict[str, ValueType] = {}
    raw: dict[str, bytes] = {}
    budget = Budget()
    for index in range(n_keys):
        key = cursor.name(f"metadata key {index}")
        if key in types:
            cursor.fail(f"the metadata key {show(key)} is there twice")
        types[key], raw[key] = read_value(cursor, show(key), budget)
    return Metadata(MappingProxyType(types), raw)


def _alignment(cursor: Cursor, metadata: Metadata) -> int:
    if ALIGNMENT_KEY not in metadata:
        return DEFAULT_ALIGNMENT
    if metadata.types[ALIGNMENT_KEY] is not GGUFValueType.UINT32:
        cursor.fail(f"{ALIGNMENT_KEY} must be of type UINT32")
    alignment = metadata.integer(ALIGNMENT_KEY, cursor.label)
    assert alignment is not None
    check_alignment(alignment, cursor.label)
    return alignment


def check_alignment(alignment: int, label: str) -> None:
    """GGUFError unless `alignment` is a power of two (ggml's rule) and a multiple of 8 (the format's)."""
    if alignment < 8 or alignment & (alignment - 1):
        raise GGUFError(f"{label}: the alignment {alignment} is not a power of two of 8 or more")


def _read_row(cursor: Cursor, index: int) -> tuple[str, tuple[int, ...], GGMLType, int, int]:
    """One row of the table: name, shape (NumPy order), type, bytes, offset inside the data section."""
    name = cursor.name(f"the name of tensor {index}")
    what = f"tensor {show(name)}"
    n_dims = cursor.u32(f"the dimension count of {what}")
    if n_dims > MAX_DIMS:
        cursor.fail(f"{what} has {n_dims} dimensions; at most {MAX_DIMS} are allowed")
    *dims, number, offset = cursor.unpack(f"<{n_dims}QIQ", f"the shape, type and offset of {what}")
    if number in REMOVED:
        cursor.fail(f"{what} is of type {REMOVED[number]} ({number}), which ggml removed; convert it again")
    try:
        type = GGMLType(number)
    except ValueError:
        cursor.fail(f"{what} is of the unknown type {number}")
    shape = tuple(reversed(dims))
    nbytes = tensor_bytes(shape, type, f"{cursor.label}: {what}")
    return name, shape, type, nbytes, offset


def tensor_bytes(shape: tuple[int, ...], type: GGMLType, what: str) -> int:
    """Packed bytes of a tensor; GGUFError where a dimension is zero or a size leaves the range of int64.

    A shape without dimensions is a single weight. `what` begins the error.
    """
    if any(n <= 0 for n in shape) or math.prod(shape) >= 1 << 63:
        raise GGUFError(f"{what} has the impossible shape {list(shape)}")
    try:
        nbytes = row_bytes(type, shape[-1] if shape else 1) * math.prod(shape[:-1])
    except GGUFError as error:
        raise GGUFError(f"{what}: {error}") from None
    if nbytes >= 1 << 63:
        raise GGUFError(f"{what} has the impossible shape {list(shape)}")
    return nbytes


def _check_placement(cursor: Cursor, tensors: tuple[TensorInfo, ...], start: int, alignment: int) -> None:
    """Names are unique; data is aligned, inside the file, and shared by no two tensors."""
    seen: set[str] = set()
    size = len(cursor.data)
    for tensor in tensors:
        if tensor.name in seen:
            cursor.fail(f"tensor {show(tensor.name)} is there twice")
        seen.add(tensor.name)
        offset = tensor.offset - start
        if offset % alignment:
            cursor.fail(f"tensor {show(tensor.name)} has the offset {offset}, not a multiple of {alignment}")
        end = tensor.offset + tensor.nbytes
        if end > size:
            cursor.fail(f"truncated or damaged: tensor {show(tensor.name)} ends at byte {end}, the file at {size}")
    end = start
    for tensor in sorted(tensors, key=lambda t: t.offset):
        if tensor.offset < end:
            cursor.fail(f"tensor {show(tensor.name)} overlaps the data of another tensor")
        end = tensor.offset + tensor.nbytes
