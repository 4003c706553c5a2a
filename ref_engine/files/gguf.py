"""Opening a model file: `open_gguf(path)`.

A GGUF file is one header and one block of tensor data; all numbers are little-endian.

    +----------------------------------------------------------------------------------+
    | "GGUF" | version u32 | tensor count u64 | key count u64                          |
    +----------------------------------------------------------------------------------+
    | key count times:      key string | value type u32 | value                        |
    |     string            length u64 | bytes (UTF-8, no zero at the end)             |
    |     array             item type u32 | item count u64 | items (may be arrays)     |
    |     other values      1, 2, 4 or 8 bytes                                         |
    +----------------------------------------------------------------------------------+
    | tensor count times:   name string | dimension count u32 (up to 4)                |
    |                       dimensions u64, fastest first | type u32 | offset u64      |
    +----------------------------------------------------------------------------------+
    | zeros up to a multiple of general.alignment (32 if that key is missing)          |
    +----------------------------------------------------------------------------------+  <- data_start
    | tensor data: each tensor at data_start + offset, rows of whole blocks, padded    |
    +----------------------------------------------------------------------------------+

The file is mapped, not read: opening costs the header (values are decoded when asked for), and a tensor's
bytes come from the disk when something touches them. Nothing in the file is believed: `header.py` and
`cursor.py` hold the checks. A model split over several files opens as one: see `shards.py`.
"""

import mmap
import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ref_engine.errors import GGUFError
from ref_engine.files.cursor import show, show_path
from ref_engine.files.header import Header, TensorInfo, parse_header
from ref_engine.files.pages import release
from ref_engine.files.shards import join_tables, other_shards
from ref_engine.files.types import ValueType
from ref_engine.files.values import Metadata


class GGUFFile:
    """An open model file, or all files of a split model. Made by `open_gguf`; also a context manager.

    Attributes:
        path: the file that was opened; `paths` are all shards in order.
        version, alignment: of the (first) file.
        metadata: the (first) file's keys and values, decoded when asked for; usable after `close`.
        types: for each key the GGUF type of its value, as `write_gguf` accepts them.
        tensors: name -> `TensorInfo`, in file order, over all shards.
    """

    def __init__(self, paths: list[Path], headers: list[Header], maps: list[mmap.mmap]) -> None:
        self.paths = tuple(paths)
        self.path = paths[0]
        self.version = headers[0].version
        self.alignment = headers[0].alignment
        self.metadata: Metadata = headers[0].metadata
        self.types: Mapping[str, ValueType] = self.metadata.types
        self.tensors: dict[str, TensorInfo] = join_tables(headers, [show_path(path) for path in paths])
        self._maps = maps

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The packed bytes of a tensor: uint8 (nbytes,), a read-only view over the mapped file.

        Raises GGUFError for a name that is not in `tensors`, or after `close`.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise GGUFError(f"{show_path(self.path)}: no tensor is named {show(name)}")
        if not self._maps:
            raise GGUFError(f"{show_path(self.path)}: the file has been closed")
        return np.frombuffer(self._maps[tensor.shard], np.uint8, tensor.nbytes, tensor.offset)

    def release(self, name: str) -> None:
        """Tell the system that a tensor's pages are not needed for now: they count as this process's memory no more.

        Its bytes can still be read; they then come from the disk, or the system's cache, again.
        """
        if self._maps:
            release(self.data(name))

    def close(self) -> None:
        """Let go of the files. Views from `data` stay valid: the last of them unmaps its file."""
        maps, self._maps = self._maps, []
        for mapped in maps:
            with suppress(BufferError):  # a view is alive and owns the map from here on
                mapped.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GGUFFile {str(self.path)!r}: {len(self.metadata)} keys, {len(self.tensors)} tensors>"


def open_gguf(path: str | os.PathLike[str]) -> GGUFFile:
    """Open a GGUF file of version 2 or 3 and check its whole header; with the first shard, all the others.

    Raises GGUFError with one line that names the file and what is wrong with it: missing, not a regular file,
    another format, truncated, damaged, of an unknown version or type, or with a shard missing.
    No file handle is left open then.
    """
    first = Path(path)
    with ExitStack() as undo:
        maps = [undo.enter_context(map_file(first))]
        headers = [parse_header(maps[0], show_path(first))]
        paths = [first, *other_shards(first, headers[0], show_path(first))]
        for number, shard in enumerate(paths[1:], start=1):
            maps.append(undo.enter_context(map_file(shard)))
            headers.append(parse_header(maps[-1], show_path(shard), number))
        opened = GGUFFile(paths, headers, maps)
        undo.pop_all()
        return opened


def map_file(path: Path) -> mmap.mmap:
    """Map a regular file that is not empty read-only. GGUFError for anything else that a path can lead to."""
    label = show_path(path)
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer. A system without the flag does not need it.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise GGUFError(f"{label}: cannot open: {error.strerror}") from None
    except ValueError as error:  # a NUL in the path
        raise GGUFError(f"{label}: cannot open: {error}") from None
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise GGUFError(f"{label}: is a directory, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise GGUFError(f"{label}: is not a regular file")
        if status.st_size == 0:
            raise GGUFError(f"{label}: the file is empty")
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError, OverflowError) as error:
        raise GGUFError(f"{label}: cannot map the file: {error}") from None
    finally:
        os.close(fd)
