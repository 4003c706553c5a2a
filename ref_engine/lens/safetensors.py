"""safetensors: a length, a JSON header of names, types, shapes and offsets, and the numbers behind it.

The format is Hugging Face's (github.com/huggingface/safetensors, "Format"); the package of that name is not needed.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError
from ref_engine.lens.npz import MOST_BYTES, Found, Raw

KEY = "ref_engine"  # of our own header among the file's metadata
_MOST_HEADER = 100 << 20  # bytes, as the format has it
_NAMES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "BF16": "<u2",
}  # fmt: skip


def write_safetensors(target: Path, header: str, arrays: Sequence[Raw]) -> None:
    """The arrays one after the other, in their order; the header under the key `ref_engine` of the metadata."""
    known = {np.dtype(code): name for name, code in reversed(_NAMES.items()) if name != "BF16"}
    entries: dict[str, Any] = {"__metadata__": {KEY: header}}
    start = 0
    for array in arrays:
        if array.dtype not in known:
            raise RefEngineError(f"{array.name}: safetensors has no type for {array.dtype}")
        end = start + array.nbytes
        entries[array.name] = {"dtype": known[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            with array.path.open("rb") as values:
                shutil.copyfileobj(values, file, 1 << 20)


def open_safetensors(path: Path) -> tuple[dict[str, Found], str | None]:
    """The arrays by name, in the order of their places in the file, and a trace's header if there is one.

    Raises RefEngineError for a damaged header, types unknown, or offsets that leave the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MOST_HEADER, size - 8):
            raise RefEngineError(f"{path}: damaged safetensors file: a header of {length} bytes in {size}")
        text = file.read(length)
    try:
        entries = json.loads(text)
        if not isinstance(entries, dict):
            raise ValueError("no table of tensors")
        metadata = entries.pop("__metadata__", None) or {}
        spans = {name: _span(name, entry, size - 8 - length) for name, entry in entries.items()}
        own = metadata.get(KEY)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RefEngineError(f"{path}: damaged safetensors header: {error}") from error
    in_order = sorted(spans.items(), key=lambda item: item[1][0])
    found = {
        name: Found(shape, _reader(path, kind, shape, 8 + length + start)) for name, (start, kind, shape) in in_order
    }
    return found, own if isinstance(own, str) else None


def _span(name: str, entry: Any, size: int) -> tuple[int, str, tuple[int, ...]]:
    """Where a tensor starts behind the header, its type and its shape."""
    kind, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if kind not in _NAMES:
        raise ValueError(f"tensor {name} has type {kind!r}, which is not read here")
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, end)) or len(shape) > 16:
        raise ValueError(f"tensor {name} has shape {shape} and offsets {start}, {end}")
    if end > size or end - start != math.prod(shape) * np.dtype(_NAMES[kind]).itemsize:
        raise ValueError(f"tensor {name}: offsets {start}..{end} do not fit shape {shape} of {kind}")
    if end - start > MOST_BYTES:
        raise ValueError(f"tensor {name} has more than {MOST_BYTES >> 30} GiB")
    return start, kind, shape


def _reader(path: Path, kind: str, shape: tuple[int, ...], start: int) -> Callable[[], NDArray[Any]]:
    def load() -> NDArray[Any]:
        flat = np.fromfile(path, _NAMES[kind], math.prod(shape), offset=start)
        if flat.size < math.prod(shape):
            raise RefEngineError(f"{path}: the file has become shorter")
        if kind == "BF16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(shape)

    return load
