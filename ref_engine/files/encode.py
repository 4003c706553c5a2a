"""Python values as GGUF metadata bytes: the inverse of `values.py`, with a rule for types that are not given.

The rule, for a value without a given type:

    bool                        BOOL
    int                         UINT32, INT32, UINT64 or INT64: the first of them that holds it
    float                       FLOAT32 (what llama.cpp demands of its keys; give FLOAT64 to keep every bit)
    str, bytes                  STRING
    NumPy scalar, 1-D array     its own dtype
    list or tuple of            array of BOOL, STRING or arrays; of ints INT32, or else UINT32, INT64, UINT64;
                                of floats, or floats and ints, FLOAT32
    an empty list               no rule: the type must be given
"""

import struct
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from ref_engine.errors import GGUFError
from ref_engine.files.types import STRUCT_CODE, ArrayType, GGUFValueType, ValueType
from ref_engine.files.values import MAX_DEPTH

_RANGE = {
    GGUFValueType.UINT8: (0, 2**8),
    GGUFValueType.INT8: (-(2**7), 2**7),
    GGUFValueType.UINT16: (0, 2**16),
    GGUFValueType.INT16: (-(2**15), 2**15),
    GGUFValueType.UINT32: (0, 2**32),
    GGUFValueType.INT32: (-(2**31), 2**31),
    GGUFValueType.UINT64: (0, 2**64),
    GGUFValueType.INT64: (-(2**63), 2**63),
}
_SCALAR_INTS = (GGUFValueType.UINT32, GGUFValueType.INT32, GGUFValueType.UINT64, GGUFValueType.INT64)
_ARRAY_INTS = (GGUFValueType.INT32, GGUFValueType.UINT32, GGUFValueType.INT64, GGUFValueType.UINT64)
_DTYPE: dict[np.dtype[Any], GGUFValueType] = {
    np.dtype("<" + STRUCT_CODE[kind]): kind for kind in STRUCT_CODE if kind is not GGUFValueType.BOOL
}
_DTYPE[np.dtype(np.bool_)] = GGUFValueType.BOOL


def encode_value(what: str, value: object, vtype: ValueType | None = None) -> bytes:
    """The value type (u32) and the value, as they stand in a file after the key.

    `what` (the key, quoted) begins every error. Raises GGUFError for a value that has no GGUF type, or that
    the given type cannot hold exactly (floats may be rounded to FLOAT32).
    """
    if vtype is None:
        vtype = _infer(what, value)
    if vtype is GGUFValueType.ARRAY:
        vtype = _infer_array(what, value)
    if isinstance(vtype, ArrayType):
        return _u32(GGUFValueType.ARRAY) + _array(what, value, vtype, MAX_DEPTH)
    return _u32(vtype) + _scalar(what, value, vtype)


def _u32(number: int) -> bytes:
    return struct.pack("<I", number)


def encode_string(what: str, value: object) -> bytes:
    """Length (u64) and bytes of a str (UTF-8 with "surrogateescape", as it was read) or of bytes."""
    if isinstance(value, str):
        try:
            value = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise GGUFError(f"{what}: character {error.start} cannot be written as UTF-8") from None
    if not isinstance(value, bytes):
        raise GGUFError(f"{what}: expected a string, not {type(value).__name__}")
    return struct.pack("<Q", len(value)) + value


def _scalar(what: str, value: object, kind: GGUFValueType) -> bytes:
    if kind is GGUFValueType.STRING:
        return encode_string(what, value)
    return _numbers(what, [value], kind)


def _numbers(what: str, values: Sequence[object], kind: GGUFValueType) -> bytes:
    """Numbers or bools, each checked to be of the kind and in its range, one after the other."""
    if kind is GGUFValueType.BOOL:
        wrong = [v for v in values if not isinstance(v, bool | np.bool_)]
    elif kind in _RANGE:
        low, high = _RANGE[kind]
        wrong = [v for v in values if not _is_int(v) or not low <= v < high]
    else:
        wrong = [v for v in values if not _is_int(v) and not isinstance(v, float | np.floating)]
    if wrong:
        raise GGUFError(f"{what}: {_brief(wrong[0])} does not fit the type {kind.name}")
    try:
        return struct.pack(f"<{len(values)}{STRUCT_CODE[kind]}", *values)
    except (OverflowError, struct.error):
        raise GGUFError(f"{what}: a value is out of the range of {kind.name}") from None


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _brief(value: object) -> str:
    if _is_int(value) or isinstance(value, bool | float | np.generic):
        return str(value)[:40]
    return f"a value of type {type(value).__name__}"


def _array(what: str, value: object, vtype: ArrayType, depth: int) -> bytes:
    """Item type (u32), item count (u64) and the items."""
    if depth == 0:
        raise GGUFError(f"{what}: arrays are nested more than {MAX_DEPTH} deep")
    if isinstance(value, np.ndarray):
        if value.ndim != 1:
            raise GGUFError(f"{what}: a NumPy array must have one dimension, not {value.ndim}")
        if _DTYPE.get(value.dtype) is vtype.item:
            return _u32(vtype.item) + struct.pack("<Q", len(value)) + value.tobytes()
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise GGUFError(f"{what}: expected a list, a tuple or a NumPy array, not {type(value).__name__}")
    head = _u32(vtype.item) + struct.pack("<Q", len(value))
    if vtype.item is GGUFValueType.STRING:
        return head + b"".join(encode_string(what, item) for item in value)
    if vtype.item is not GGUFValueType.ARRAY:
        return head + _numbers(what, value, vtype.item)
    inner = vtype.inner or tuple(_infer_array(what, item) for item in value)
    if len(inner) != len(value):
        raise GGUFError(f"{what}: {len(value)} inner arrays, but types for {len(inner)}")
    parts = [_array(what, item, each, depth - 1) for item, each in zip(value, inner, strict=True)]
    return head + b"".join(parts)


def _infer(what: str, value: object) -> ValueType:
    if isinstance(value, bool | np.bool_):
        return GGUFValueType.BOOL
    if isinstance(value, str | bytes):
        return GGUFValueType.STRING
    if isinstance(value, np.generic) and value.dtype in _DTYPE:
        return _DTYPE[value.dtype]
    if isinstance(value, int):
        return _smallest(what, [value], _SCALAR_INTS)
    if isinstance(value, float):
        return GGUFValueType.FLOAT32
    if isinstance(value, list | tuple | np.ndarray):
        return _infer_array(what, value)
    raise GGUFError(f"{what}: a value of type {type(value).__name__} cannot be stored as GGUF metadata")


def _infer_array(what: str, value: object) -> ArrayType:
    if isinstance(value, np.ndarray) and value.dtype in _DTYPE:
        return ArrayType(_DTYPE[value.dtype])
    if not isinstance(value, list | tuple):
        raise GGUFError(f"{what}: a value of type {type(value).__name__} cannot be stored as a GGUF array")
    if not value:
        raise GGUFError(f"{what}: the item type of an empty array must be given")
    if all(isinstance(v, bool | np.bool_) for v in value):
        return ArrayType(GGUFValueType.BOOL)
    if all(isinstance(v, str | bytes) for v in value):
        return ArrayType(GGUFValueType.STRING)
    if all(isinstance(v, list | tuple | np.ndarray) for v in value):
        return ArrayType(GGUFValueType.ARRAY)
    if all(_is_int(v) for v in value):
        return ArrayType(_smallest(what, value, _ARRAY_INTS))
    if all(_is_int(v) or isinstance(v, float | np.floating) for v in value):
        return ArrayType(GGUFValueType.FLOAT32)
    raise GGUFError(f"{what}: the items of an array must be of one type")


def _smallest(what: str, values: Sequence[int], kinds: Sequence[GGUFValueType]) -> GGUFValueType:
    low, high = min(values), max(values)
    for kind in kinds:
        if _RANGE[kind][0] <= low and high < _RANGE[kind][1]:
            return kind
    raise GGUFError(f"{what}: no GGUF integer type holds {_brief(low if low < 0 else high)}")
