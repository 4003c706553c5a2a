"""Which instruction set to run: the best that the processor has, or the one that REF_ENGINE_ISA names."""

from __future__ import annotations

import os

from ref_engine.compat import has_kernels, native, why_no_kernels
from ref_engine.errors import RefEngineError


def available() -> tuple[str, ...]:
    """Compiled instruction sets that this processor can run, slowest first; none without kernels."""
    return native.cpu_isas() if has_kernels else ()


def chosen_isa(isa: str | None = None) -> str:
    """An instruction set: `isa`, else REF_ENGINE_ISA, else the best there is.

    Raises RefEngineError for one that is unknown, not compiled in, or not in this processor.
    """
    if not has_kernels:
        raise RefEngineError(why_no_kernels)
    here = available()
    wanted = isa or os.environ.get("REF_ENGINE_ISA") or here[-1]
    if wanted not in native.ISAS:
        raise RefEngineError(f"unknown instruction set {wanted!r} (known: {', '.join(native.ISAS)})")
    if wanted not in here:
        raise RefEngineError(f"instruction set {wanted} is not available here (available: {', '.join(here)})")
    return wanted


def table(isa: str | None = None) -> native.Table:
    """The kernels of that instruction set. Raises RefEngineError as `chosen_isa`."""
    name = chosen_isa(isa)  # before `native` is looked into, which may be missing
    return native.Table(name)
