"""The tensors of a directory of safetensors files.

The `safetensors` package reads and checks each file's header. The format leaves no gap between tensors, so their order
and sizes say where each one lies; the bytes are mapped from there, because NumPy has no bfloat16 and no 8-bit floats.

model.safetensors.index.json, where there is one, names the file of each tensor: {"weight_map": {name: file}}.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ref_engine.checkpoint.config import read_json
from ref_engine.checkpoint.numbers import ITEM_BYTES, decode
from ref_engine.checkpoint.tensor import Array, Tensor
from ref_engine.errors import ConvertError
from ref_engine.files.cursor import show, show_path

INDEX = "model.safetensors.index.json"
_VALUES_AT_A_TIME = 1 << 22
_MOST_TENSORS = 1 << 20


def open_checkpoint(folder: Path) -> dict[str, Tensor]:
    """The tensors by name, file by file and in each file by name, the order in which llama.cpp takes them.

    Raises ConvertError where there is no safetensors file, one is damaged or missing, the index names a file outside
    the directory, or index and files do not hold the same tensors.
    """
    index = folder / INDEX
    weight_map = _weight_map(index) if index.is_file() else None
    if weight_map is None:
        files = sorted(p.name for p in folder.glob("model*.safetensors") if p.is_file())
    else:
        files = sorted(set(weight_map.values()))
    if not files:
        raise ConvertError(f"{show_path(folder)}: no model*.safetensors here (other formats are not read)")
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _open_file(folder / file):
            if name in tensors:
                raise ConvertError(f"{show_path(folder / file)}: tensor {show(name)} is in another file, too")
            if weight_map is not None and weight_map.get(name) != file:
                raise ConvertError(f"{show_path(folder / file)}: tensor {show(name)} is not in {INDEX}")
            tensors[name] = tensor
    missing = [name for name in weight_map or () if name not in tensors]
    if missing:
        raise ConvertError(f"{show_path(index)}: tensor {show(missing[0])} is in none of the files")
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise ConvertError(f"{show_path(index)}: weight_map is missing or does not give a file for each tensor")
    for file in sorted(set(found.values())):
        if not file or file in (".", "..") or os.path.basename(file) != file or "\\" in file or "\0" in file:
            raise ConvertError(f"{show_path(index)}: {show(file)} is not the name of a file in this directory")
        if not (index.parent / file).is_file():
            raise ConvertError(f"{show_path(index.parent / file)}: this part of the model is missing")
    return found


def _open_file(path: Path) -> Iterator[tuple[str, Tensor]]:
    label = show_path(path)
    try:
        with safe_open(path, framework="numpy") as file, open(path, "rb") as raw:
            names = file.offset_keys()
            if len(names) > _MOST_TENSORS:
                raise ConvertError(f"{label}: {len(names)} tensors are more than any model has")
            table = {
                name: (file.get_slice(name).get_dtype(), tuple(file.get_slice(name).get_shape())) for name in names
            }
            start = 8 + int.from_bytes(raw.read(8), "little")
            data = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    except (SafetensorError, OSError, ValueError) as error:
        raise ConvertError(f"{label}: not a sound safetensors file: {error}") from error
    tensors = {}
    for name, (dtype, shape) in table.items():
        if dtype not in ITEM_BYTES:
            raise ConvertError(f"{label}: tensor {show(name)} has type {dtype}, which is not read")
        tensors[name] = Tensor(name, shape, dtype, partial(_parts, data, start, dtype, shape))
        start += ITEM_BYTES[dtype] * int(np.prod(shape, dtype=np.int64))
    if start != len(data):
        raise ConvertError(f"{label}: {len(data)} bytes where the header speaks of {start}")
    yield from sorted(tensors.items())


def _parts(data: mmap.mmap, start: int, dtype: str, shape: tuple[int, ...]) -> Iterator[Array]:
    width = int(np.prod(shape[1:], dtype=np.int64)) * ITEM_BYTES[dtype]
    n_rows = shape[0] if shape else 1
    at_a_time = max(1, _VALUES_AT_A_TIME * ITEM_BYTES[dtype] // max(width, 1))
    for first in range(0, max(n_rows, 1), at_a_time):
        n = min(at_a_time, n_rows - first)
        at = start + first * width
        yield decode(np.frombuffer(data, np.uint8, n * width, at), dtype).reshape((n, *shape[1:]) if shape else ())
        _release(data, at, at + n * width)


def _release(data: mmap.mmap, start: int, stop: int) -> None:
    """Give pages that were read back to the system; where they are needed again they come from the file."""
    if hasattr(mmap, "MADV_DONTNEED"):
        first = -(start // -mmap.PAGESIZE) * mmap.PAGESIZE
        if first < stop:
            data.madvise(mmap.MADV_DONTNEED, first, stop - first)
