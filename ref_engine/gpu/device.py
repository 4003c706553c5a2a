"""The GPU: whether there is one, what it holds, and what happens when it is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine import compat
from ref_engine.errors import RefEngineError
from ref_engine.place import Place


class DeviceMemoryError(RefEngineError):
    """The GPU's memory is full. What the pass had taken is free again, and the process goes on."""


def device() -> Any:
    """The module cupy, with a device that it can run on. Raises RefEngineError that says what is missing."""
    cupy = compat.cupy
    why = compat.why_no_cupy if cupy is None else compat.why_no_device(cupy)
    if why:
        raise RefEngineError(f"backend cupy cannot run here: {why}")
    return cupy


def place(cupy: Any, keeps: Callable[[str], bool]) -> Place:
    """The device as a place for arrays. keeps: whether a tensor of this name is used there."""

    def put(x: NDArray[Any]) -> NDArray[Any]:
        there: NDArray[Any] = cupy.asarray(np.ascontiguousarray(x))
        return there

    free, _ = cupy.cuda.runtime.memGetInfo()
    return Place("cuda", put, keeps, budget=int(free) // 4)


@contextmanager
def full_memory_reported(cupy: Any) -> Iterator[None]:
    """Turns CuPy's OutOfMemoryError into one of ours, after what nobody uses any more was given back."""
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        message = str(error).rstrip(".")
        error.__traceback__ = None  # it holds the frames, and so the arrays, of what failed
        raise DeviceMemoryError(message) from None
