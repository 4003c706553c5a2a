"""What quantising a file will do: which tensors become what, and which metadata change.

Source of the order of tensors and of the metadata: `llama_model_quantize_impl` of llama.cpp, and what its
llama-quantize adds about an importance matrix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ref_engine.errors import GGUFError, ModelError
from ref_engine.files import GGUFFile
from ref_engine.files.header import TensorInfo
from ref_engine.files.types import GGMLType, GGUFValueType, ValueType, row_bytes
from ref_engine.imatrix.matrix import ImportanceMatrix, rows_of
from ref_engine.mixture import (
    Choice,
    Chooser,
    FileType,
    Wishes,
    file_order,
    guessed_file_type,
    kind_of,
    needs_importance,
    read_facts,
)
from ref_engine.quant.quantize import NEEDS_IMPORTANCE, can_quantize
from ref_engine.quant.types import BLOCK_TYPES, NUMBER_TYPES

_FILE_TYPE, _VERSION = "general.file_type", "general.quantization_version"
SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS = "split.no", "split.count", "split.tensors.count"
_LAYER = re.compile(r"blk\.(\d+)\.")
_LONGEST_STRING = 127  # of a metadata value that llama.cpp is told to put in place


@dataclass(frozen=True)
class Override:
    """A metadata value to put in place: of type UINT32, FLOAT32, BOOL or STRING."""

    key: str
    value: int | float | bool | str
    type: GGUFValueType


@dataclass(frozen=True)
class Extras:
    """What may be asked for besides types.

    importance, importance_name: an importance matrix and the name of its file, which the new file tells
    overrides: metadata to put in place of the file's; prune: numbers of layers to leave out
    keep_split: write as many files as the model was read from
    """

    importance: ImportanceMatrix | None = None
    importance_name: str = ""
    overrides: Sequence[Override] = ()
    prune: Collection[int] = ()
    keep_split: bool = False


@dataclass(frozen=True)
class Change:
    """One tensor: what it is and what it becomes. shape is in NumPy order.

    new_name: differs from name where layers before it are pruned. instead_of: the type it would have had if its rows
    were whole blocks of that. weighted: whether the importance matrix has something on it.
    """

    name: str
    shape: tuple[int, ...]
    old_type: GGMLType
    new_type: GGMLType
    old_bytes: int
    new_bytes: int
    new_name: str
    instead_of: GGMLType | None = None
    weighted: bool = False

    @property
    def n_weights(self) -> int:
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Weights in a row."""
        return columns_of(self.shape)


def columns_of(shape: Sequence[int]) -> int:
    """Weights in a row of a tensor of this NumPy shape; a shape without axes is a single weight."""
    return shape[-1] if shape else 1


@dataclass(frozen=True)
class Plan:
    """changes: in the order of the new file. needs_importance: names of tensors that wait for an importance matrix."""

    changes: list[Change]
    needs_importance: list[str]

    def check(self, allow_requantize: bool) -> None:
        """Raises ModelError for a tensor that needs an importance matrix, and for one that is quantised already."""
        for change in self.changes:
            if change.name in self.needs_importance:
                what = f"{change.new_type.name} is of no use without an importance matrix (--imatrix)"
                raise ModelError(f"tensor {change.name}: {what}")
        for change in self.changes:
            if change.new_type is not change.old_type and change.old_type in BLOCK_TYPES and not allow_requantize:
                raise ModelError(
                    f"tensor {change.name} is {change.old_type.name} already: quantising it again loses more, and is "
                    "done only with --allow-requantize"
                )


def make_plan(
    file: GGUFFile, file_type: FileType | None, wishes: Wishes | None = None, extras: Extras | None = None
) -> Plan:
    """What `quantize_file` would do. file_type None: copy everything.

    Raises ModelError where a type has no quantiser or does not fit a tensor, GGUFError where rows are not whole blocks.
    """
    wishes, extras = wishes or Wishes(), extras or Extras()
    new_names = renamed(file, extras.prune)
    order = sorted(new_names, key=file_order)
    if extras.keep_split:
        order.sort(key=lambda name: (file.tensors[name].shard, file.tensors[name].offset))
    importance = extras.importance if extras.importance is not None and extras.importance.entries else None
    chooser = None
    if file_type is not None:
        facts = read_facts({**file.metadata, **{o.key: o.value for o in extras.overrides}})
        chooser = Chooser(file_type, facts, [new_names[name] for name in order], wishes, importance is not None)
    changes, waiting = [], []
    for name in order:
        info, new_name = file.tensors[name], new_names[name]
        choice = Choice(info.type) if chooser is None else _choice(chooser, new_name, info)
        new = choice.type
        weighted = new is not info.type and _weighted(info, importance)
        if new is not info.type:
            _check(info, new)
            if not weighted and file_type is not None and _waits(new_name, new, file_type):
                waiting.append(name)
        rows = math.prod(info.shape[:-1])
        try:
            nbytes = rows * row_bytes(new, columns_of(info.shape))
        except GGUFError as error:
            raise ModelError(f"tensor {name}: {error}") from error
        changes.append(
            Change(name, info.shape, info.type, new, info.nbytes, nbytes, new_name, choice.instead_of, weighted)
        )
    return Plan(changes, waiting)


def _choice(chooser: Chooser, new_name: str, info: TensorInfo) -> Choice:
    try:
        return chooser.choice(new_name, info.shape, info.type)
    except ModelError as error:
        raise ModelError(f"tensor {info.name}: {error}") from error


def renamed(file: GGUFFile, prune: Collection[int]) -> dict[str, str]:
    """New names by old ones, without the tensors of the layers to prune. Raises ModelError for a layer that is none."""
    layers = sorted({int(match[1]) for match in map(_LAYER.search, file.tensors) if match})
    unknown = sorted(set(prune) - set(layers))
    if unknown:
        raise ModelError(f"layer {unknown[0]} cannot be pruned: the file has no tensor blk.{unknown[0]}.*")
    kept = [layer for layer in layers if layer not in prune]
    first = min(prune, default=0)
    number, after = {}, 0
    for layer in kept:  # those before the first that goes keep their numbers, even if some are missing
        number[layer] = layer if layer < first else after
        after = number[layer] + 1
    names = {}
    for name in file.tensors:
        match = _LAYER.search(name)
        if match is None or not prune:
            names[name] = name
        elif int(match[1]) in number:
            names[name] = f"{name[: match.start(1)]}{number[int(match[1])]}{name[match.end(1) :]}"
    return names


def _weighted(info: TensorInfo, importance: ImportanceMatrix | None) -> bool:
    """Whether there are importances for this tensor. Raises ModelError where they are for another shape."""
    if importance is None or info.name not in importance.entries:
        return False
    size = importance.entries[info.name].sums.size
    if rows_of(size, info.shape):
        return True
    if kind_of(info.name) == "embedding":
        return False
    raise ModelError(f"tensor {info.name} of shape {list(info.shape)}: the importance matrix has {size} values for it")


def _waits(name: str, new: GGMLType, file_type: FileType) -> bool:
    return needs_importance(name, new, file_type) or new in NEEDS_IMPORTANCE


def _check(info: TensorInfo, new: GGMLType) -> None:
    if not can_quantize(new):
        raise ModelError(f"tensor {info.name}: there is no quantiser to {new.name}")
    if info.type in NUMBER_TYPES:
        raise ModelError(f"tensor {info.name} has type {info.type.name}, which is not converted")


def new_metadata(
    file: GGUFFile, file_type: FileType | None, changes: Sequence[Change], extras: Extras
) -> tuple[dict[str, object], dict[str, ValueType]]:
    """Metadata of the new file and their types: keys that change move to the end, as llama.cpp sets them."""
    metadata: dict[str, object] = dict(file.metadata)
    types: dict[str, ValueType] = dict(file.types)

    def put(key: str, value: object, type: GGUFValueType) -> None:
        metadata.pop(key, None)
        metadata[key], types[key] = value, type

    put(_VERSION, 2, GGUFValueType.UINT32)
    put(_FILE_TYPE, _file_type_number(file, file_type, extras), GGUFValueType.UINT32)
    for key in (SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS):
        metadata.pop(key, None)
    for override in (*extras.overrides, *_about(extras)):
        put(override.key, override.value, override.type)
    if extras.prune:
        layers = [int(match[1]) for match in (_LAYER.search(change.new_name) for change in changes) if match]
        put(f"{metadata.get('general.architecture')}.block_count", max(layers, default=-1) + 1, GGUFValueType.UINT32)
    return metadata, {key: type for key, type in types.items() if key in metadata}


def _file_type_number(file: GGUFFile, file_type: FileType | None, extras: Extras) -> int:
    if file_type is not None:
        return file_type.number
    stated = {**file.metadata, **{o.key: o.value for o in extras.overrides}}.get(_FILE_TYPE)
    if isinstance(stated, int) and 0 <= stated < 1 << 32:
        return int(stated)
    return guessed_file_type(file.tensors[name].type for name in sorted(file.tensors, key=file_order))


def _about(extras: Extras) -> list[Override]:
    """What a file tells of the importance matrix it was made with."""
    matrix = extras.importance
    if matrix is None or not matrix.entries:
        return []
    string, uint32 = GGUFValueType.STRING, GGUFValueType.UINT32
    about = [Override("quantize.imatrix.file", shortened(extras.importance_name), string)]
    if matrix.datasets:
        about.append(Override("quantize.imatrix.dataset", shortened(matrix.datasets[0]), string))
    about.append(Override("quantize.imatrix.entries_count", len(matrix.entries), uint32))
    if matrix.n_chunks > 0:
        about.append(Override("quantize.imatrix.chunks_count", matrix.n_chunks, uint32))
    return about


def shortened(text: str) -> str:
    """At most the bytes that llama.cpp keeps of such a value."""
    return text.encode("utf-8", "surrogateescape")[:_LONGEST_STRING].decode("utf-8", "surrogateescape")


def shard_path(target: Path, number: int, count: int) -> Path:
    """`DIR/NAME.gguf` -> `DIR/NAME-00001-of-0000N.gguf` for number 0."""
    name = target.name[:-5] if ".gguf" in target.name else target.name
    return target.with_name(f"{name}-{number + 1:05d}-of-{count:05d}.gguf")


def shard_metadata(number: int, count: int, n_tensors: int) -> tuple[Mapping[str, object], Mapping[str, ValueType]]:
    """What every file of a split model says."""
    values = {SPLIT_NO: number, SPLIT_COUNT: count, SPLIT_TENSORS: n_tensors}
    kinds = {SPLIT_NO: GGUFValueType.UINT16, SPLIT_COUNT: GGUFValueType.UINT16, SPLIT_TENSORS: GGUFValueType.INT32}
    return values, kinds
