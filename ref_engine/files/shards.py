"""Models split over several files: how the files are named, and whether they belong together.

llama.cpp's `gguf-split` writes `NAME-00001-of-0000N.gguf` and up. The first holds all metadata; every one
holds `split.no` (from 0), `split.count` (N) and `split.tensors.count` (tensors of all files together).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ref_engine.errors import GGUFError
from ref_engine.files.cursor import show
from ref_engine.files.header import Header, TensorInfo

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)

NO_KEY = "split.no"
COUNT_KEY = "split.count"
TENSORS_KEY = "split.tensors.count"


def other_shards(path: Path, header: Header, label: str) -> list[Path]:
    """The files that belong to the first shard at `path`, in order; empty for a model in one file.

    Raises GGUFError where `path` is not the first shard or is not named as one.
    """
    count = header.metadata.integer(COUNT_KEY, label)
    if count is None or count in (0, 1):  # a merged model keeps the key with 0
        return []
    match = _NAME.fullmatch(path.name)
    number = header.metadata.integer(NO_KEY, label)
    if number is None:
        raise GGUFError(f"{label}: {COUNT_KEY} is {count} but {NO_KEY} is missing")
    if number != 0:
        first = f"{match['stem']}-00001-of-{match['count']}.gguf" if match else "the first one"
        raise GGUFError(f"{label}: this is file {number + 1} of a model split over {count}; open {first}")
    if not 0 < count <= 99999:
        raise GGUFError(f"{label}: {COUNT_KEY} is {count}")
    if match is None or (int(match["number"]), int(match["count"])) != (1, count):
        raise GGUFError(f"{label}: this is the first of {count} files; its name must end in -00001-of-{count:05d}.gguf")
    return [path.with_name(f"{match['stem']}-{k:05d}-of-{count:05d}.gguf") for k in range(2, count + 1)]


def join_tables(headers: Sequence[Header], labels: Sequence[str]) -> dict[str, TensorInfo]:
    """One table of the tensors of all shards, in order.

    Raises GGUFError, naming the shard, where a number, a count or a tensor name contradicts the others.
    """
    tensors: dict[str, TensorInfo] = {}
    for number, (header, label) in enumerate(zip(headers, labels, strict=True)):
        if len(headers) > 1:
            _check_shard(header, label, number, len(headers))
        for tensor in header.tensors:
            if tensor.name in tensors:
                raise GGUFError(f"{label}: tensor {show(tensor.name)} is also in an earlier shard")
            tensors[tensor.name] = tensor
    if len(headers) > 1:
        _check_total(headers, labels, len(tensors))
    return tensors


def _check_shard(header: Header, label: str, number: int, count: int) -> None:
    for key, expected in ((NO_KEY, number), (COUNT_KEY, count)):
        value = header.metadata.integer(key, label)
        if value != expected:
            raise GGUFError(f"{label}: {key} is {value}; file {number + 1} of {count} must have {expected}")


def _check_total(headers: Sequence[Header], labels: Sequence[str], found: int) -> None:
    for number, (header, label) in enumerate(zip(headers, labels, strict=True)):
        total = header.metadata.integer(TENSORS_KEY, label)
        if total is None and number > 0:
            continue  # only the first file's count is demanded by llama.cpp
        if total != found:
            raise GGUFError(f"{label}: {TENSORS_KEY} is {total}, but the {len(headers)} files hold {found}")
