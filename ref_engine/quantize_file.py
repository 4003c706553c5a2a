"""From one GGUF file to another with its matrices in other types, tensor by tensor.

Nothing but some rows of one tensor is ever held in memory. The new file appears under its name only when it is whole.
Source of the order of tensors and of the metadata that change: `llama_model_quantize_impl` of llama.cpp.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import GGUFError, ModelError
from ref_engine.files import GGUFFile, open_gguf
from ref_engine.files.header import TensorInfo
from ref_engine.files.types import GGMLType, GGUFValueType, row_bytes
from ref_engine.files.writer import write_gguf
from ref_engine.mixture import Chooser, FileType, Wishes, file_order, needs_importance, read_facts
from ref_engine.quant.quantize import can_quantize, quantize
from ref_engine.quant.types import BLOCK_TYPES, NUMBER_TYPES, dequantize

_WEIGHTS_AT_A_TIME = 1 << 22
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
_FILE_TYPE, _VERSION = "general.file_type", "general.quantization_version"


@dataclass(frozen=True)
class Change:
    """One tensor: what it is and what it becomes. shape is in NumPy order."""

    name: str
    shape: tuple[int, ...]
    old_type: GGMLType
    new_type: GGMLType
    old_bytes: int
    new_bytes: int


def plan_changes(file: GGUFFile, file_type: FileType | None, wishes: Wishes | None = None) -> list[Change]:
    """What `quantize_file` would do, in the order of the new file. file_type None: copy everything.

    Raises ModelError where a type needs an importance matrix, has no quantiser, or does not fit a tensor.
    """
    names = sorted(file.tensors, key=file_order)
    chooser = None if file_type is None else Chooser(file_type, read_facts(file.metadata), names, wishes or Wishes())
    changes = []
    for name in names:
        info = file.tensors[name]
        new = info.type if chooser is None else chooser.choose(name, info.shape, info.type)
        if new is not info.type:
            _check(info, new, file_type)
        rows = int(np.prod(info.shape[:-1], dtype=np.int64))
        changes.append(Change(name, info.shape, info.type, new, info.nbytes, rows * row_bytes(new, info.shape[-1])))
    return changes


def _check(info: TensorInfo, new: GGMLType, file_type: FileType | None) -> None:
    what = f"tensor {info.name}"
    if file_type is not None and needs_importance(info.name, new, file_type):
        raise ModelError(f"{what}: {new.name} is of no use without an importance matrix, which is not supported yet")
    if not can_quantize(new):
        raise ModelError(f"{what}: there is no quantiser to {new.name}")
    if info.type in NUMBER_TYPES:
        raise ModelError(f"{what} has type {info.type.name}, which is not converted")


def refuse_quantised(changes: Sequence[Change]) -> None:
    """Raises ModelError if a tensor that is to change is quantised already."""
    for change in changes:
        if change.new_type is not change.old_type and change.old_type in BLOCK_TYPES:
            raise ModelError(
                f"tensor {change.name} is {change.old_type.name} already: quantising it again loses more, and is done "
                "only with --allow-requantize"
            )


def quantize_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    file_type: FileType | None,
    wishes: Wishes | None = None,
    *,
    allow_requantize: bool = False,
    begin: Callable[[Change], None] | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[Change]:
    """Write `target`, whole or not at all.

    Args:
        file_type: of `ref_engine.mixture.FILE_TYPES`, or None to copy every tensor.
        allow_requantize: take tensors that are quantised already; what was lost stays lost.
        begin: called before each tensor; advance: called with bytes of the source as they are done.

    Raises GGUFError for a file that cannot be read or written, ModelError as `plan_changes`, for weights that are not
    finite and for tensors quantised already.
    """
    with open_gguf(source) as file:
        if any(_same_file(path, target) for path in file.paths):
            raise GGUFError(f"{target} is the file that is read; choose another name")
        changes = plan_changes(file, file_type, wishes)
        if not allow_requantize:
            refuse_quantised(changes)
        metadata = {key: value for key, value in file.metadata.items() if key not in _SPLIT_KEYS}
        types = {key: value for key, value in file.types.items() if key in metadata}
        if file_type is not None:
            metadata.pop(_VERSION, None), metadata.pop(_FILE_TYPE, None)
            metadata |= {_VERSION: 2, _FILE_TYPE: file_type.number}
            types |= {_VERSION: GGUFValueType.UINT32, _FILE_TYPE: GGUFValueType.UINT32}
        tensors = [
            (c.name, c.shape, c.new_type, partial(_converted, file, c, begin or _ignore, advance or _ignore))
            for c in changes
        ]
        write_gguf(target, metadata, tensors, types=types)
    return changes


def _ignore(_: object) -> None:
    return None


def _same_file(path: Path, target: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(path, target)
    except OSError:  # the target does not exist yet
        return False


def _converted(
    file: GGUFFile, change: Change, begin: Callable[[Change], None], advance: Callable[[int], None]
) -> Iterator[NDArray[np.uint8]]:
    """The bytes of the new tensor, some rows at a time."""
    begin(change)
    columns = change.shape[-1]
    data = file.data(change.name)
    width = row_bytes(change.old_type, columns)
    rows = data.reshape(-1, width) if width else data.reshape(0, 1)
    at_a_time = max(1, _WEIGHTS_AT_A_TIME // max(columns, 1))
    for start in range(0, len(rows), at_a_time):
        part = rows[start : start + at_a_time]
        if change.new_type is change.old_type:
            yield part.reshape(-1)
        else:
            yield _packed(change, part, start)
        advance(int(part.nbytes))


def _packed(change: Change, rows: NDArray[np.uint8], first: int) -> NDArray[np.uint8]:
    try:
        return quantize(dequantize(rows, change.old_type), change.new_type).reshape(-1)
    except ModelError as error:
        raise ModelError(f"tensor {change.name}, rows from {first}: {error}") from error
