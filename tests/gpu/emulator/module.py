"""`RawModule` over a shared library that g++ makes of a source."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emulator.memory import Guarded

_SHIM = Path(__file__).with_name("shim.h").read_text()
_FLAGS = [
    *("-std=c++17", "-O0", "-shared", "-fPIC", "-w", "-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv"),
    *("-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"),
]
_BOUNDS = r"(?:__launch_bounds__\([^)]*\)\s+)?"
_KERNEL = re.compile(rf"__global__\s+{_BOUNDS}void\s+{_BOUNDS}(\w+)\s*\(")
_DYNAMIC = re.compile(r"extern\s+__shared__\s+([\w ]+?)\s+(\w+)\[\]\s*;")


class EmulatorError(RuntimeError):
    """A source that does not compile, or a kernel that did what a device would not let it do, or do in silence."""


def why_not() -> str:
    """Why nothing can be emulated here; empty if it can."""
    if platform.machine() != "x86_64":
        return "the emulator of CUDA needs an x86-64 processor"
    return "" if shutil.which("g++") else "the emulator of CUDA needs g++"


def _expanded(code: str, options: Sequence[str]) -> str:
    """The source with its own macros expanded, so that kernels made by one are seen; those of CUDA are left."""
    defines = [option for option in options if option.startswith("-D")]
    done = subprocess.run(
        ["g++", "-E", "-x", "c++", "-DEMULATED=1", *defines, "-"], input=code, capture_output=True, text=True
    )
    if done.returncode:
        raise EmulatorError(done.stderr[:4000])
    return done.stdout


def _library(text: str, options: Sequence[str]) -> Path:
    """The compiled source, made once for each text, in a folder of the user's for temporary files."""
    defines = [option for option in options if option.startswith("-D")]
    key = hashlib.sha256("\0".join([text, *defines, *_FLAGS]).encode()).hexdigest()[:32]
    folder = Path(tempfile.gettempdir()) / f"cuda-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder / f"{key}.so"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            source, library = Path(work) / "source.cc", Path(work) / "library.so"
            source.write_text(text)
            command = ["g++", *_FLAGS, *defines, "-o", str(library), str(source)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise EmulatorError(done.stderr[:4000])
            library.replace(made)
    return made


class RawModule:
    """As cupy.RawModule. backwards: the threads of a block run from the last to the first."""

    def __init__(
        self,
        code: str,
        *,
        options: Sequence[str] = (),
        backend: str = "nvrtc",
        name_expressions: Sequence[str] | None = None,
        jitify: bool = False,
        backwards: bool = False,
    ) -> None:
        code = _expanded(code, options)
        self._names = _KERNEL.findall(code)
        body = _DYNAMIC.sub(r"\1 *\2 = (\1 *)emu::dynamic;", code)
        launchers = "".join(f"EMULATE({name})\n" for name in self._names)
        self._library = ctypes.CDLL(str(_library(f"{_SHIM}\nnamespace {{\n{body}\n}}\n{launchers}", options)))
        self.backwards = backwards

    def get_function(self, name: str) -> Kernel:
        if name not in self._names:
            raise EmulatorError(f"the source has no kernel {name}")
        return Kernel(name, getattr(self._library, f"emu_launch_{name}"), self.backwards)


class Kernel:
    """A kernel that can be launched."""

    max_dynamic_shared_size_bytes = 48 << 10

    def __init__(self, name: str, launch: Any, backwards: bool) -> None:
        launch.restype = ctypes.c_char_p
        self.name, self._launch, self._backwards = name, launch, backwards

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise EmulatorError(f"{self.name}: {shared_mem} bytes of shared memory, more than a launch gets unasked")
        plain = [getattr(a, "_host", a) for a in args]
        guarded = Guarded([a for a in plain if isinstance(a, np.ndarray)])
        values: list[np.generic[Any]] = []
        for i, a in enumerate(plain):
            if isinstance(a, np.ndarray):
                a = np.uint64(guarded.address(a))
            if not isinstance(a, np.generic):
                raise TypeError(f"{self.name}: argument {i} is {type(a).__name__}, not an array or a NumPy number")
            values.append(a)
        cells = [ctypes.create_string_buffer(v.tobytes(), v.nbytes) for v in values]
        pointers = (ctypes.c_void_p * len(cells))(*[ctypes.addressof(c) for c in cells])
        sizes = (ctypes.c_size_t * len(cells))(*[v.nbytes for v in values])
        three = [(ctypes.c_uint * 3)(*(int(n) for n in (*dims, 1, 1)[:3])) for dims in (grid, block)]
        error = self._launch(
            three[0], three[1], ctypes.c_size_t(shared_mem), pointers, sizes, len(cells), int(self._backwards)
        )
        if error:
            raise EmulatorError(f"{self.name}: {error.decode()}")
        if not guarded.give_back():
            raise EmulatorError(f"{self.name}: a write behind an array")
