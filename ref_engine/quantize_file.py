"""From one GGUF file to another with its matrices in other types, tensor by tensor.

Nothing but some rows of one tensor is ever held in memory. The new file appears under its name only when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from secrets import token_hex

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import GGUFError, ModelError
from ref_engine.files import GGUFFile, open_gguf
from ref_engine.files.types import GGMLType, row_bytes
from ref_engine.files.writer import write_gguf
from ref_engine.imatrix.matrix import ImportanceMatrix
from ref_engine.kernels.quantisers import Quantize, quantiser
from ref_engine.mixture import FileType, Wishes
from ref_engine.quant.blocks import F32
from ref_engine.quant.types import BLOCK_TYPES, PLAIN_TYPES, dequantize
from ref_engine.quantize_plan import (
    Change,
    Extras,
    make_plan,
    new_metadata,
    shard_metadata,
    shard_path,
)

_WEIGHTS_AT_A_TIME = 1 << 22


def quantize_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    file_type: FileType | None,
    wishes: Wishes | None = None,
    extras: Extras | None = None,
    *,
    allow_requantize: bool = False,
    begin: Callable[[Change], None] | None = None,
    advance: Callable[[int], None] | None = None,
    pack: Quantize | None = None,
) -> list[Change]:
    """Write `target`, whole or not at all; with `keep_split` the files `shard_path` makes of it.

    Args:
        file_type: of `ref_engine.mixture.FILE_TYPES`, or None to copy every tensor.
        allow_requantize: take tensors that are quantised already; what was lost stays lost.
        begin: called before each tensor; advance: called with bytes of the source as they are done.
        pack: what quantises rows, None: `quantiser()`; all give the same bytes.

    Raises GGUFError for a file that cannot be read or written, ModelError as `make_plan` and `Plan.check`, for weights
    that are not finite and for tensors quantised already.
    """
    extras = extras or Extras()
    with open_gguf(source) as file:
        plan = make_plan(file, file_type, wishes, extras)
        plan.check(allow_requantize)
        changes = plan.changes
        targets = _targets(file, Path(target), changes, extras)
        if any(_same_file(path, new) for path in file.paths for new in targets):
            raise GGUFError(f"{target} is the file that is read; choose another name")
        pack, begin, advance = pack or quantiser(), begin or _ignore, advance or _ignore
        convert = partial(_converted, file, extras.importance, pack, begin, advance)
        _write(file, targets, file_type, changes, extras, convert)
    return changes


def _ignore(_: object) -> None:
    return None


def _same_file(path: Path, target: Path) -> bool:
    try:
        return os.path.samefile(path, target)
    except OSError:  # the target does not exist yet
        return False


def _targets(file: GGUFFile, target: Path, changes: list[Change], extras: Extras) -> list[Path]:
    if not extras.keep_split:
        return [target]
    count = max((file.tensors[change.name].shard for change in changes), default=0) + 1
    return [shard_path(target, number, count) for number in range(count)]


def _write(
    file: GGUFFile,
    targets: list[Path],
    file_type: FileType | None,
    changes: list[Change],
    extras: Extras,
    convert: Callable[[Change], Iterator[NDArray[np.uint8]]],
) -> None:
    """Every file under a temporary name, and when all are written, all under their own."""
    metadata, types = new_metadata(file, file_type, changes, extras)
    with ExitStack() as undo:
        ready = []
        for number, target in enumerate(targets):
            if len(targets) > 1:
                values, kinds = shard_metadata(number, len(targets), len(changes))
                metadata = {**(metadata if number == 0 else {}), **values}
                types = {**(types if number == 0 else {}), **kinds}
            tensors = [
                (c.new_name, c.shape, c.new_type, partial(convert, c))
                for c in changes
                if len(targets) == 1 or file.tensors[c.name].shard == number
            ]
            temporary = target
            if len(targets) > 1:
                temporary = target.with_name(f".{target.name[:100]}.{token_hex(6)}.tmp")
                undo.callback(temporary.unlink, missing_ok=True)
            write_gguf(temporary, metadata, tensors, types=types)
            ready.append((temporary, target))
        for temporary, target in ready:
            os.replace(temporary, target)


def _converted(
    file: GGUFFile,
    matrix: ImportanceMatrix | None,
    pack: Quantize,
    begin: Callable[[Change], None],
    advance: Callable[[int], None],
    change: Change,
) -> Iterator[NDArray[np.uint8]]:
    """The bytes of the new tensor, some rows at a time, none of which belong to different experts."""
    begin(change)
    columns = change.shape[-1] if change.shape else 1
    rows = file.data(change.name).reshape(-1, row_bytes(change.old_type, columns))
    importance: F32 | None = None
    together = len(rows)
    if change.weighted and matrix is not None:
        importance = matrix.importance(change.name).reshape(-1, columns)
        together = len(rows) // len(importance)
    at_a_time = max(1, _WEIGHTS_AT_A_TIME // columns)
    for first in range(0, len(rows), together):
        column = None if importance is None else importance[first // together]
        for start in range(first, first + together, at_a_time):
            part = rows[start : min(start + at_a_time, first + together)]
            yield _packed(pack, change, part, start, column)
            advance(int(part.nbytes))
            file.release(change.name)


def _packed(
    pack: Quantize, change: Change, rows: NDArray[np.uint8], first: int, importance: F32 | None
) -> NDArray[np.uint8]:
    if change.new_type is change.old_type:
        _check_finite(change, rows, first)
        return rows.reshape(-1)
    weights = dequantize(rows, change.old_type)
    _refuse_not_finite(change, weights, first)
    try:
        return pack(weights, change.new_type, importance).reshape(-1)
    except ModelError as error:
        raise ModelError(f"tensor {change.name}: {error}") from error


def _check_finite(change: Change, rows: NDArray[np.uint8], first: int) -> None:
    """Of a tensor that is copied: its numbers, or where it has blocks their half-precision scales."""
    if change.old_type in PLAIN_TYPES:
        _refuse_not_finite(change, dequantize(rows, change.old_type), first)
    elif change.old_type is GGMLType.F64:
        _refuse_not_finite(change, rows.view("<f8"), first)
    elif change.old_type in BLOCK_TYPES:
        layout = BLOCK_TYPES[change.old_type].layout
        blocks = rows.view(layout)
        for name in layout.names or ():
            if blocks[name].dtype.kind == "f" and not np.isfinite(blocks[name]).all():
                row, block = np.argwhere(~np.isfinite(blocks[name].reshape(len(rows), blocks.shape[1], -1)))[0][:2]
                raise ModelError(f"tensor {change.name}: the scale of block {block} in row {first + row} is not finite")


def _refuse_not_finite(change: Change, weights: NDArray[np.floating], first: int) -> None:
    finite = np.isfinite(weights)
    if finite.all():
        return
    row, column = np.argwhere(~finite)[0]
    where = f"row {first + row}, column {column}"
    if len(change.shape) > 2:
        of_matrix = change.shape[-2]
        matrix = (first + row) // of_matrix
        where = f"matrix {matrix}, row {(first + row) % of_matrix}, column {column}"
    raise ModelError(f"tensor {change.name}: the weight in {where} is {weights[row, column]}")
