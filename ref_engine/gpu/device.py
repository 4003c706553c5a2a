"""The GPU: whether there is one, how arrays get there, and what happens when it is full."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine import compat
from ref_engine.errors import DeviceMemoryError, RefEngineError
from ref_engine.place import Place

_PIECE = 64 << 20  # bytes that are copied at once
_ADVICE = "fewer --gpu-layers, --experts-on cpu or a smaller --n-ctx take less"


def device() -> Any:
    """The module cupy, with a device that it can run on. Raises RefEngineError that says what is missing."""
    cupy = compat.cupy
    why = compat.why_no_cupy if cupy is None else compat.why_no_device(cupy)
    if why:
        raise RefEngineError(f"backend cupy cannot run here: {why}")
    return cupy


class Device(Place):
    """The memory of the current device. keeps: whether a tensor of this name is used there."""

    name = "cuda"

    def __init__(self, cupy: Any, keeps: Callable[[str], bool]) -> None:
        self.cupy = cupy
        self._keeps = keeps
        self.budget = 0

    def put(self, x: NDArray[Any]) -> NDArray[Any]:
        x = np.ascontiguousarray(x)
        if x.nbytes <= _PIECE:
            small: NDArray[Any] = self.cupy.asarray(x)
            return small
        there: NDArray[Any] = self.cupy.empty(x.shape, x.dtype)
        flat, n = x.reshape(-1), _PIECE // x.itemsize
        for first in range(0, x.size, n):  # a mapped file comes into memory piece by piece
            there.reshape(-1)[first : first + n].set(flat[first : first + n])  # type: ignore[attr-defined]
        return there

    def keeps(self, name: str) -> bool:
        return self._keeps(name)

    def free(self) -> int:
        """Bytes that can still be taken: of the device, and of CuPy's pool."""
        pool = self.cupy.get_default_memory_pool()
        free, _ = self.cupy.cuda.runtime.memGetInfo()
        return int(free + pool.total_bytes() - pool.used_bytes())

    @contextmanager
    def holding(self, what: str) -> Iterator[None]:
        """Turns CuPy's error for lack of memory into one that names `what`; what had been taken is given back."""
        try:
            yield
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            message = str(error).rstrip(".")
            traceback.clear_frames(error.__traceback__)  # they hold the arrays of what failed
            self.cupy.get_default_memory_pool().free_all_blocks()
            raise DeviceMemoryError(f"{what} not fit the GPU: {message[:1].lower()}{message[1:]}") from None
        except DeviceMemoryError as error:  # of something inside that has a name of its own
            traceback.clear_frames(error.__traceback__)
            self.cupy.get_default_memory_pool().free_all_blocks()
            raise

    def finish(self) -> None:
        self.cupy.cuda.runtime.deviceSynchronize()

    def has_room(self, packed: int, unpacked: int) -> None:
        free = self.free()
        if packed > free:
            raise DeviceMemoryError(f"the weights take {packed:,} bytes of the GPU, and {free:,} are free: {_ADVICE}")
        self.budget = unpacked if packed + unpacked <= free // 2 else 0
