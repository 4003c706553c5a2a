"""`cupy.RawModule` by g++."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHIM = Path(__file__).with_name("shim.h").read_text()
_KERNEL = re.compile(r"\b__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")
_FLAGS = ("-O0", "-std=c++17", "-w", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing")
_MOST_SHARED = 48 << 10  # bytes that a block has without asking for more


def why_not() -> str:
    """Why nothing can be emulated here; empty if it can."""
    return "" if shutil.which("g++") else "there is no g++ to compile kernels with"


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="emulated-")


def _run(command: list[str], text: str) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"g++ does not compile this:\n{done.stderr[:4000]}")
    return done.stdout


@functools.cache
def _library(code: str, defines: tuple[str, ...]) -> tuple[ctypes.CDLL, frozenset[str]]:
    """The compiled text, and the names of its kernels."""
    plain = _run(["g++", "-E", "-P", "-DEMULATED=1", "-x", "c++", "-", *defines], code)  # macros may make kernels
    names = frozenset(_KERNEL.findall(plain))
    ends = [
        f'extern "C" const char *launch_{name}(const unsigned *dims, size_t shared, void **args)'
        f"{{ return emulated::launch({name}, dims, shared, args); }}\n"
        f'extern "C" const char *kinds_{name}() {{ return emulated::kinds({name}); }}\n'
        for name in sorted(names)
    ]
    path = Path(_folder().name) / f"{hashlib.sha256(repr((code, defines)).encode()).hexdigest()[:20]}.so"
    _run(["g++", *_FLAGS, "-x", "c++", "-", "-o", str(path)], "\n".join([SHIM, plain, *ends]))
    return ctypes.CDLL(str(path)), names


class RawModule:
    """cupy.RawModule, for kernels that are declared extern "C"."""

    def __init__(
        self,
        *,
        code: str | None = None,
        path: str | None = None,
        options: Sequence[str] = (),
        backend: str = "nvrtc",
        name_expressions: Any = None,
    ) -> None:
        if code is None or path is not None or name_expressions is not None or backend not in ("nvrtc", "nvcc"):
            raise ValueError("only kernels of a text, without templates, are emulated")
        defines = tuple(o for o in options if o.startswith("-D"))
        self._library, self._names = _library(code, defines)

    def get_function(self, name: str) -> Kernel:
        if name not in self._names:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return Kernel(self._library, name)


class Kernel:
    """cupy.RawKernel"""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name = name
        self._launch = getattr(library, f"launch_{name}")
        self._launch.restype = ctypes.c_char_p
        kinds = getattr(library, f"kinds_{name}")
        kinds.restype = ctypes.c_char_p
        self.kinds = kinds().decode()

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        dims = [*grid, *[1] * (3 - len(grid)), *block, *[1] * (3 - len(block))]
        if min(dims) < 1 or max(dims[1:3]) > 65535 or np.prod(dims[3:]) > 1024 or dims[5] > 64:
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {self.name} with grid {grid} and block {block}")
        if shared_mem > _MOST_SHARED:
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {self.name} with {shared_mem} bytes of shared memory")
        if len(args) != len(self.kinds):
            raise TypeError(f"{self.name} takes {len(self.kinds)} arguments, {len(args)} are given")
        values = [self._value(i, kind, arg) for i, (kind, arg) in enumerate(zip(self.kinds, args, strict=True))]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
        error = self._launch((ctypes.c_uint * 6)(*dims), ctypes.c_size_t(shared_mem), pointers)
        if error:
            raise RuntimeError(f"{self.name}: {error.decode()}")

    def _value(self, i: int, kind: str, arg: Any) -> Any:
        """An argument's bytes. Raises TypeError unless its type is the parameter's."""
        host = getattr(arg, "_host", None)
        if kind == "p" and isinstance(host, np.ndarray):
            return ctypes.c_void_p(host.ctypes.data)
        if kind == "p" and isinstance(arg, np.uint64) and arg == 0:
            return ctypes.c_void_p(0)
        if isinstance(arg, np.generic) and arg.dtype.char.replace("l", "q").replace("L", "Q") == kind:
            return ctypes.create_string_buffer(arg.tobytes(), arg.itemsize)
        raise TypeError(f"argument {i} of {self.name} is {type(arg).__name__}, which is not the parameter's {kind!r}")
