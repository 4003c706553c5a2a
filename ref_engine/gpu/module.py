"""The CUDA sources in cuda/, compiled when somebody asks for a kernel of theirs.

A source is one text: what it shares with others is put in front of it, so that no compiler has to look for files. CuPy
compiles it with NVRTC for the device that is there, loads it, and keeps what it compiled on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from ref_engine import compat

Kernel = Callable[..., None]  # (grid, block, arguments)
NOTHING = np.uint64(0)  # a null pointer
_PARTS = {
    "round": ("common.cuh",),
    "plain": ("common.cuh", "which.cuh"),
    "products": ("common.cuh", "which.cuh", "units.cuh", "units_k.cuh"),
    "norm": ("common.cuh", "rows.cuh"),
    "elementwise": ("common.cuh", "rows.cuh"),
    "attention": ("common.cuh",),
    "route": ("common.cuh", "elementary.cuh"),
    "experts": ("common.cuh",),
}
SOURCES = tuple(_PARTS)


@cache
def source(name: str) -> str:
    """The whole text of cuda/NAME.cu, which takes TYPE as a macro if it is for one type of weights at a time."""
    folder = files("ref_engine.gpu") / "cuda"
    return "\n".join((folder / part).read_text(encoding="utf-8") for part in (*_PARTS[name], f"{name}.cu"))


@cache
def _compiled(cupy: Any, name: str, type: str) -> Any:
    defines = (f"-DTYPE={type}",) if type else ()
    return cupy.RawModule(code=source(name), options=("-std=c++17", *defines))


@cache
def _kernel(cupy: Any, name: str, kernel: str, type: str) -> Kernel:
    found: Kernel = _compiled(cupy, name, type).get_function(kernel)
    return found


def get(name: str, kernel: str, type: str = "") -> Kernel:
    """A kernel of cuda/NAME.cu, for weights of this type."""
    return _kernel(compat.cupy, name, kernel, type)
