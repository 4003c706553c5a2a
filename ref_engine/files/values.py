"""Metadata values: first measured and checked as bytes, later decoded when somebody asks for them."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ref_engine.errors import GGUFError
from ref_engine.files.cursor import Cursor
from ref_engine.files.types import STRUCT_CODE, ArrayType, GGUFValueType, ValueType

MAX_STRINGS = 1 << 21
"""Strings in the arrays of one file: over twice the tokens and merges of the largest vocabulary known."""

MAX_NESTED = 1 << 16
"""Arrays inside arrays in one file. No model is known to have any; the format allows them."""

MAX_DEPTH = 8
"""How deep arrays may nest."""


@dataclass
class Budget:
    """What one file may still spend on parts that cost more memory here than they take in the file."""

    strings: int = MAX_STRINGS
    nested: int = MAX_NESTED


def read_value(cursor: Cursor, key: str, budget: Budget) -> tuple[ValueType, bytes]:
    """Check the value of `key` at the cursor and pass over it.

    `key` is only for errors, already quoted. Returns the type and a copy of the bytes after it, which
    `decode_value` accepts. Raises GGUFError on anything that does not fit the file.
    """
    kind = _value_type(cursor, f"the type of {key}")
    start = cursor.pos
    vtype: ValueType = kind
    if kind is GGUFValueType.ARRAY:
        vtype = _pass_array(cursor, key, budget, MAX_DEPTH)
    elif kind is GGUFValueType.STRING:
        cursor.skip(cursor.u64(f"the length of {key}"), f"the string {key}")
    else:
        cursor.skip(struct.calcsize("<" + STRUCT_CODE[kind]), f"the value of {key}")
    return vtype, cursor.data[start : cursor.pos]


def _value_type(cursor: Cursor, what: str) -> GGUFValueType:
    number = cursor.u32(what)
    try:
        return GGUFValueType(number)
    except ValueError:
        cursor.fail(f"{what} is {number}, which is not a GGUF value type")


def _pass_array(cursor: Cursor, key: str, budget: Budget, depth: int) -> ArrayType:
    if depth == 0:
        cursor.fail(f"the array {key} is nested more than {MAX_DEPTH} deep")
    item = _value_type(cursor, f"the item type of {key}")
    count = cursor.u64(f"the item count of {key}")
    what = f"the array {key} of {count} items"
    if item is GGUFValueType.STRING:
        if count > budget.strings:
            cursor.fail(f"{what} takes the file over its limit of {MAX_STRINGS} strings")
        budget.strings -= count
        cursor.strings(count, what)
    elif item is GGUFValueType.ARRAY:
        cursor.need(12 * count, what)
        if count > budget.nested:
            cursor.fail(f"{what} takes the file over its limit of {MAX_NESTED} nested arrays")
        budget.nested -= count
        return ArrayType(item, tuple(_pass_array(cursor, key, budget, depth - 1) for _ in range(count)))
    else:
        cursor.skip(count * struct.calcsize("<" + STRUCT_CODE[item]), what)
    return ArrayType(item)


def decode_value(vtype: ValueType, raw: bytes) -> object:
    """The Python value of bytes that `read_value` has checked.

    Scalars become int, float, bool or str. An array of numbers or bools becomes a read-only 1-D NumPy array
    of that type, an array of strings a list of str, an array of arrays a list of these. Bytes that are not
    UTF-8 become lone surrogates ("surrogateescape"), so that encoding the same way gives every byte back.
    """
    if isinstance(vtype, ArrayType):
        return _decode_array(vtype, Cursor(raw, "metadata"))
    if vtype is GGUFValueType.STRING:
        return raw[8:].decode("utf-8", "surrogateescape")
    value: object = struct.unpack("<" + STRUCT_CODE[vtype], raw)[0]
    return bool(value) if vtype is GGUFValueType.BOOL else value


def _decode_array(vtype: ArrayType, cursor: Cursor) -> object:
    cursor.pos += 4
    count = cursor.u64("an item count")
    if vtype.item is GGUFValueType.ARRAY:
        return [_decode_array(inner, cursor) for inner in vtype.inner]
    if vtype.item is GGUFValueType.STRING:
        return _decode_strings(cursor, count)
    dtype = np.dtype("<" + STRUCT_CODE[vtype.item])
    numbers = np.frombuffer(cursor.take(count * dtype.itemsize, "an array"), dtype)
    if vtype.item is GGUFValueType.BOOL:
        numbers = numbers != 0
        numbers.flags.writeable = False
    return numbers


def _decode_strings(cursor: Cursor, count: int) -> list[str]:
    starts = cursor.strings(count, "an array")
    begins, ends = starts.tolist(), np.append(starts[1:] - 8, cursor.pos)[:count].tolist()
    raw = cursor.data
    try:  # a third faster without an error handler
        return [raw[begin:end].decode() for begin, end in zip(begins, ends, strict=True)]
    except UnicodeDecodeError:
        return [raw[b:e].decode("utf-8", "surrogateescape") for b, e in zip(begins, ends, strict=True)]


def listed(metadata: Mapping[str, object], key: str) -> int:
    """How many items the list under `key` has, 0 where there is no list. A file's metadata are not decoded for it."""
    if not isinstance(metadata, Metadata):
        value = metadata.get(key)
        return len(value) if isinstance(value, (list, tuple)) else 0
    vtype = metadata.types.get(key)
    if not isinstance(vtype, ArrayType) or vtype.item not in (GGUFValueType.STRING, GGUFValueType.ARRAY):
        return 0  # other arrays are no lists
    return metadata.count(key)


class Metadata(Mapping[str, object]):
    """The key-value pairs of a file, in file order.

    A value is decoded when it is first asked for and kept. The bytes are copies, so that metadata outlives
    the file: a vocabulary can be used after `GGUFFile.close()`. Treat the lists as read-only.
    """

    def __init__(self, types: Mapping[str, ValueType], raw: Mapping[str, bytes]) -> None:
        self.types = types
        self._raw = dict(raw)
        self._values: dict[str, object] = {}

    def __getitem__(self, key: str) -> object:
        if key not in self._values:
            raw = self._raw[key]
            self._values[key] = decode_value(self.types[key], raw)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, key: object) -> bool:
        return key in self._raw  # Mapping's own would decode the value

    def count(self, key: str) -> int:
        """The number of items of an array."""
        return Cursor(self._raw[key][4:12], "metadata").u64("an item count")

    def __repr__(self) -> str:
        return f"<Metadata of {len(self)} keys>"

    def integer(self, key: str, label: str) -> int | None:
        """The value of `key` or None; GGUFError (which begins with `label`) where it is no integer."""
        if key not in self:
            return None
        value = self[key]
        if isinstance(value, bool) or not isinstance(value, int):
            raise GGUFError(f"{label}: the metadata key {key!r} must be an integer")
        return value
