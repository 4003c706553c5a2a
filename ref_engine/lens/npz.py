"""NumPy's own files: one array (.npy), or a zip of them (.npz). Nothing is unpickled."""

from __future__ import annotations

import io
import math
import shutil
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError

HEADER = "__trace__"  # the entry of a trace that says what it is
MOST_BYTES = 1 << 33  # in one array
_NUMBERS = "biuf"


@dataclass(frozen=True)
class Raw:
    """An array in a file of its own, without a header: C order."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    path: Path

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> NDArray[Any]:
        return np.fromfile(self.path, self.dtype).reshape(self.shape)


def write_npz(target: Path, header: str, arrays: Iterable[Raw]) -> None:
    """A stored zip of .npy files, the header among them as a text."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(f"{HEADER}.npy", "w") as file:
            npy.write_array(file, np.array(header), allow_pickle=False)
        for array in arrays:
            with archive.open(f"{array.name}.npy", "w", force_zip64=True) as file:
                facts = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
                npy.write_array_header_1_0(file, facts)
                with array.path.open("rb") as values:
                    shutil.copyfileobj(values, file, 1 << 20)


@dataclass(frozen=True)
class Found:
    """An array in a file: its shape, and how to read it."""

    shape: tuple[int, ...]
    load: Callable[[], NDArray[Any]]


def open_npz(path: Path) -> tuple[dict[str, Found], str | None]:
    """The arrays of a .npz by name, in the order of the file, and the header of a trace if it has one.

    Texts and objects among them are left out, unread. Raises RefEngineError for a file that is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            found = {}
            text = None
            for info in members:
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as file:
                    if name == HEADER:
                        text = _text(file, info.file_size, path)
                    else:
                        shape, dtype, _ = _facts(file, info.file_size, f"{path}: {name}")
                        if dtype.kind in _NUMBERS:
                            found[name] = Found(shape, _member(path, info.filename))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise RefEngineError(f"{path}: damaged .npz file: {error}") from error
    return found, text


def open_npy(path: Path) -> Found:
    """One array. Raises RefEngineError for a file that is none of numbers."""
    with path.open("rb") as file:
        shape, dtype, _ = _facts(file, path.stat().st_size, str(path))
    if dtype.kind not in _NUMBERS:
        raise RefEngineError(f"{path}: holds {dtype}, expected numbers")

    def load() -> NDArray[Any]:
        with path.open("rb") as file:
            return _array(file, path.stat().st_size, str(path))

    return Found(shape, load)


def _member(path: Path, member: str) -> Callable[[], NDArray[Any]]:
    def load() -> NDArray[Any]:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                return _array(file, archive.getinfo(member).file_size, f"{path}: {member}")
        except (zipfile.BadZipFile, EOFError) as error:
            raise RefEngineError(f"{path}: damaged .npz file: {error}") from error

    return load


def _facts(file: IO[bytes], size: int, what: str) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and order as an .npy header has them, held against the size of the file."""
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, EOFError) as error:
        raise RefEngineError(f"{what}: no readable .npy header: {str(error).splitlines()[0]}") from error
    if dtype.hasobject:
        return shape, dtype, fortran  # pickled: of no size that could be known, and never read
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > size - file.tell():
        raise RefEngineError(f"{what}: the header says shape {shape}, and the file ends before that")
    if math.prod(shape) * dtype.itemsize > MOST_BYTES:
        raise RefEngineError(f"{what}: an array of more than {MOST_BYTES >> 30} GiB")
    return shape, dtype, fortran


def _array(file: IO[bytes], size: int, what: str) -> NDArray[Any]:
    shape, dtype, fortran = _facts(file, size, what)
    count = math.prod(shape)
    data = file.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise RefEngineError(f"{what}: the file ends before its array does")
    flat = np.frombuffer(data, dtype, count)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _text(file: IO[bytes], size: int, path: Path) -> str:
    if size > 1 << 28:
        raise RefEngineError(f"{path}: a header of {size} bytes")
    try:
        array = npy.read_array(io.BytesIO(file.read()), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise RefEngineError(f"{path}: damaged header: {error}") from error
    if array.dtype.kind != "U" or array.ndim:
        raise RefEngineError(f"{path}: the header is no text")
    return str(array)
