"""The module itself: functions by name, memory, and the little of CUDA's runtime that is asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from standin.array import API, Array, by_ufunc, host, lifted, noted, now, other, signature

# Functions that take NumPy arrays too, by which of their parameters
_FROM_HOST = {"asarray": ("a",), "array": ("obj",), "split": ("indices_or_sections",), "repeat": ("repeats",)}
_TYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


class OutOfMemoryError(MemoryError):
    """cupy.cuda.memory.OutOfMemoryError"""


class CUDARuntimeError(RuntimeError):
    """cupy.cuda.runtime.CUDARuntimeError"""

    def __init__(self, status: int, why: str = "") -> None:
        self.status = status
        super().__init__(f"cudaError{status} {why}")


class Pool:
    """The memory pool: counts the bytes of arrays that are alive, and refuses more than the device has.

    A block that is let go stays with the pool until `free_all_blocks`, as CuPy's do; another may have it before.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.limit = 0
        self.used = self.most = self.held = 0
        self._known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def took(self, array: np.ndarray[Any, Any]) -> None:
        while isinstance(array.base, np.ndarray):
            array = array.base
        if self._known.get(id(array)) is array:
            return
        size = array.nbytes
        room = min(self.memory, self.limit or self.memory)
        if self.used + size > room:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: {self.used:,} bytes).")
        self._known[id(array)] = array
        self.used += size
        self.most, self.held = max(self.most, self.used), max(self.held, self.used)
        weakref.finalize(array, self._left, size)

    def _left(self, size: int) -> None:
        self.used -= size

    def used_bytes(self) -> int:
        return self.used

    def total_bytes(self) -> int:
        return self.held

    def free_all_blocks(self, stream: Any = None) -> None:
        self.held = self.used

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        self.limit = int(size if size is not None else (fraction or 0) * self.memory)

    def get_limit(self) -> int:
        return self.limit


class Stream(AbstractContextManager["Stream"]):
    """Work in order: all is done when it is asked for, so there is nothing to wait for."""

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.ptr = 0

    def __exit__(self, *error: object) -> None:
        return None

    def use(self) -> Stream:
        return self

    def synchronize(self) -> None:
        return None

    def record(self, event: Any = None) -> Any:
        return event

    def wait_event(self, event: Any) -> None:
        return None

    def begin_capture(self, mode: Any = None) -> None:
        Array.module.tape = []

    def end_capture(self) -> Graph:
        """Nothing of it has been done: arrays that were made meanwhile hold anything."""
        tape, Array.module.tape = Array.module.tape, None
        if Array.module.spoilt:
            Array.module.spoilt = False
            raise CUDARuntimeError(901, "the recording is invalid")
        for _, result in tape:
            for made in arrays(result):
                if made._host.base is None and made._host.flags.c_contiguous:
                    made._host.reshape(-1).view(np.uint8)[...] = 0xFF
        return Graph(tape)


def arrays(result: Any) -> list[Array]:
    return [r for r in (result if isinstance(result, tuple | list) else [result]) if isinstance(r, Array)]


class Graph:
    """cupy.cuda.Graph"""

    def __init__(self, tape: list[Any]) -> None:
        self._tape = tape

    def launch(self, stream: Any = None) -> None:
        Array.module.graphs += 1
        for run, result in self._tape:
            for old, new in zip(arrays(result), arrays(run()), strict=True):
                if old._host.flags.writeable:
                    np.copyto(old._host, new._host)


class MemoryPool:
    """cupy.cuda.MemoryPool: of its own, so that what it gave out is given to nobody else."""

    def malloc(self, size: int) -> Any:
        raise NotImplementedError("the stand-in's arrays are NumPy's")


class Kernels:
    """cupy.RawModule"""

    def __init__(self, module: Any) -> None:
        self._module = module

    def get_function(self, name: str) -> Callable[..., None]:
        kernel = self._module.get_function(name)
        return lambda *args, **given: noted(lambda: kernel(*args, **given))


class Cupy(ModuleType):
    """`cupy`, with one device of `memory` bytes."""

    def __init__(self, memory: int) -> None:
        super().__init__("cupy")
        self.__version__ = API["version"]
        self.ndarray = Array
        self.pool = Pool(memory)
        for name in _TYPES:
            setattr(self, name, getattr(np, name))
        self.bool_, self.dtype, self.newaxis, self.inf, self.nan = np.bool_, np.dtype, None, np.inf, np.nan
        self.cuda = self._cuda()
        self.devices = 1
        self.tape: list[Any] | None = None  # what a stream records
        self.spoilt = False
        self.pinned: Callable[[int], Any] = lambda size: None  # memory for copies from the host
        self.graphs = 0  # that were launched
        Array.module = self

    def __getattr__(self, name: str) -> Any:
        if name in API["ufuncs"]:
            return lambda *args, **given: by_ufunc(name, *args, **given)
        if name in API["functions"]:
            return self._function(name)
        if name == "RawModule":
            from emulator import RawModule  # the tests of kernels have it

            return lambda **given: Kernels(RawModule(**given))
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")

    def _function(self, name: str) -> Callable[..., Any]:
        parameters, from_host = API["functions"][name], _FROM_HOST.get(name, ())
        plain = getattr(np, name)

        def call(*args: Any, **given: Any) -> Any:
            bound = signature(parameters).bind(*args, **given)
            hosts = [id(bound.arguments[key]) for key in from_host if key in bound.arguments]
            if given.get("kind") not in (None, "stable"):
                raise ValueError(f"CuPy sorts stably: {name} with kind={given['kind']!r}")
            given.pop("blocking", None)
            if name in ("concatenate", "stack", "argsort", "sort", "unique", "nonzero", "bincount") or (
                name in ("asarray", "array") and not isinstance(args[0], Array)
            ):
                self.pinned(0)
                now(name)  # a copy from the host, or a size that only the device knows
            plain_args = [x if id(x) in hosts and not isinstance(x, Array) else host(x) for x in args]
            plain_given = {key: host(x) for key, x in given.items()}

            def run() -> Any:
                with np.errstate(all="ignore"):
                    made = plain(*plain_args, **plain_given)
                if name in ("asarray", "array") and not isinstance(args[0], Array):
                    made = np.array(made)  # it was copied to the device
                return lifted(other(made, *plain_args))

            return noted(run)

        return call

    # -- what is not NumPy's -------------------------------------------------------------------------------------

    def asnumpy(self, a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
        return a.get() if isinstance(a, Array) else np.asarray(a)

    def ascontiguousarray(self, a: Any, dtype: Any = None) -> Array:
        return noted(lambda: Array(other(np.ascontiguousarray(host(a), dtype), host(a))))

    def get_default_memory_pool(self) -> Pool:
        return self.pool

    def get_default_pinned_memory_pool(self) -> Any:
        return SimpleNamespace(free_all_blocks=lambda: None, malloc=lambda size: None)

    def unique(self, ar: Any) -> Array:
        now("unique")
        return Array(np.unique(host(ar)))

    def _cuda(self) -> Any:
        runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=self._count,
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13000,
            memGetInfo=lambda: (self.pool.memory - self.pool.held, self.pool.memory),
            getDeviceProperties=lambda device: {
                "name": b"stand-in", "major": 9, "minor": 0, "multiProcessorCount": 132,
                "totalGlobalMem": self.pool.memory,
            },
            deviceSynchronize=lambda: now("deviceSynchronize"),
            getDevice=lambda: 0,
        )  # fmt: skip
        return SimpleNamespace(
            runtime=runtime,
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            Stream=Stream,
            MemoryPool=MemoryPool,
            set_pinned_memory_allocator=lambda allocator: setattr(self, "pinned", allocator),
            using_allocator=lambda allocator: nullcontext(),
            Event=Event,
            get_elapsed_time=lambda start, end: (end.at - start.at) * 1e3,
            get_current_stream=Stream,
            Device=Device,
        )

    def _count(self) -> int:
        return self.devices


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        import time

        self.at = time.perf_counter()

    def synchronize(self) -> None:
        return None


class Device(nullcontext["Device"]):
    """The only device."""

    def __init__(self, device: int = 0) -> None:
        super().__init__(self)
        self.id = device
        self.compute_capability = "90"

    def synchronize(self) -> None:
        return None

    def use(self) -> Device:
        return self
