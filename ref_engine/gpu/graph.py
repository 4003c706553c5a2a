"""Work that the device does again by itself: a CUDA graph of all that a function starts.

A token's pass is some hundreds of calls from Python, each of which takes longer than what it starts. Recorded once,
they are one call. Arrays keep their places: what changes from one time to the next is written into those that went in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ref_engine.gpu import module
from ref_engine.gpu.attention import _TYPES
from ref_engine.gpu.layers import together
from ref_engine.gpu.position import NotRecorded, Position

_THREADS = 128


@dataclass(frozen=True)
class Recording:
    """pool: has all arrays that were made meanwhile, and keeps their places."""

    graph: Any
    pool: Any
    result: Any

    def again(self) -> Any:
        """Starts it all; the same array each time, with what came of it."""
        self.graph.launch()
        return self.result


def _refuse(size: int) -> Any:
    """In the place of CuPy's memory for copies from the host: done again, they would copy other bytes."""
    raise NotRecorded("a copy from the host")


@dataclass(frozen=True)
class Recorder:
    """Of one device."""

    cupy: Any

    def position(self) -> Position:
        return Position(self.cupy.zeros(1, np.int64))

    def remember(self, rows: Any, new: Any, at: Position) -> None:
        """rows (S, ...), together in memory, and new (1, ...): rows[at] = new."""
        kernel = module.get("attention", "remember", _TYPES[rows.dtype])
        kernel((-(-new.size // _THREADS),), (_THREADS,), (together(new), rows, at.value, np.int32(new.size)))

    def record(self, run: Callable[[], Any]) -> Recording:
        """What `run` starts, which is not done now. It has run before, so that kernels and weights are there.

        Raises NotRecorded where CUDA refuses.
        """
        cuda = self.cupy.cuda
        cuda.runtime.deviceSynchronize()
        stream, pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        cuda.set_pinned_memory_allocator(_refuse)
        with stream, cuda.using_allocator(pool.malloc), ExitStack() as after:
            after.callback(cuda.set_pinned_memory_allocator, self.cupy.get_default_pinned_memory_pool().malloc)
            stream.begin_capture()
            try:
                result = run()
            except BaseException as error:
                with suppress(RuntimeError):  # the recording is spoilt already
                    stream.end_capture()
                if isinstance(error, RuntimeError):  # CuPy's for all of CUDA's errors
                    raise NotRecorded(f"CUDA says {error}") from None
                raise
            graph = stream.end_capture()
        return Recording(graph, pool, result)
