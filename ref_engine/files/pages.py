"""Pages of a mapped file that nobody needs for now: giving them back to the system."""

import mmap

import numpy as np
import numpy.typing as npt

_WINDOW = 2 << 20
"""Linux maps the pages around one that is touched along with it, at the most 2 MiB that begin at a multiple of that."""


def release(data: npt.NDArray[np.uint8]) -> None:
    """Tell the system that the pages under `data` are not needed: they count as this process's memory no more.

    data: uint8 (n,), contiguous. The bytes can still be read; they then come from the disk, or the system's cache,
    again. Nothing is done with what is no view of a file that is mapped read-only, or on a system without such advice.
    """
    mapped = _mapping(data)
    if mapped is None or data.size == 0 or not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = _address(data) - _address(np.frombuffer(mapped, np.uint8, 1))
    start = first - first % max(_WINDOW, mmap.PAGESIZE)
    end = min(-(-(first + data.size) // _WINDOW) * _WINDOW, len(mapped))
    mapped.madvise(mmap.MADV_DONTNEED, start, end - start)


def _mapping(data: npt.NDArray[np.uint8]) -> mmap.mmap | None:
    """The read-only map that an array is a view of. What is written elsewhere, advice would throw away."""
    base: object = data
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else base
    if not isinstance(owner, mmap.mmap):
        return None
    with memoryview(owner) as view:
        return owner if view.readonly else None


def _address(data: npt.NDArray[np.uint8]) -> int:
    address: int = data.__array_interface__["data"][0]
    return address
