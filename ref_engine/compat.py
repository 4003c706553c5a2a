"""The only optional imports, and whether they are there."""

from __future__ import annotations

from typing import Any

__all__ = [
    "cupy",
    "has_cupy",
    "has_kernels",
    "has_llguidance",
    "llguidance",
    "native",
    "native_quantize",
    "why_no_cupy",
    "why_no_kernels",
    "why_no_quantisers",
]

try:
    from ref_engine.kernels import _native as native
except ImportError as error:
    native = None  # type: ignore[assignment]
    why_no_kernels = f"the compiled kernels are not there ({error}); install ref-engine where a C compiler is found"
else:
    why_no_kernels = ""

has_kernels: bool = native is not None

try:
    from ref_engine.kernels import _quantize as native_quantize
except ImportError as error:
    native_quantize = None  # type: ignore[assignment]
    why_no_quantisers = (
        f"the compiled quantisers are not there ({error}); install ref-engine where a C compiler is found"
    )
else:
    why_no_quantisers = ""

try:
    import llguidance
except ImportError:
    llguidance = None  # type: ignore[assignment]

has_llguidance: bool = llguidance is not None

cupy: Any  # the module, or None; imported when somebody asks, since it takes a second
has_cupy: bool  # with a device to run on
why_no_cupy: str

_NO_DEVICE, _OLD_DRIVER = 100, 35  # cudaErrorNoDevice, cudaErrorInsufficientDriver


def why_no_device(module: Any) -> str:
    """Why CuPy cannot run here, in one line; empty if it can. module: cupy."""
    runtime = module.cuda.runtime
    try:
        return "" if runtime.getDeviceCount() else "CuPy finds no CUDA device on this machine"
    except runtime.CUDARuntimeError as error:
        driver, needed = (_version(ask()) for ask in (runtime.driverGetVersion, runtime.runtimeGetVersion))
        if error.status == _OLD_DRIVER and driver == "0.0":
            return "CuPy finds no NVIDIA driver on this machine"
        if error.status == _OLD_DRIVER:
            return f"the NVIDIA driver is for CUDA {driver}, CuPy needs {needed}: a newer driver, or another CuPy"
        if error.status == _NO_DEVICE:
            return "CuPy finds no CUDA device on this machine"
        return f"CuPy cannot reach the CUDA device: {error}"


def _version(number: int) -> str:
    """13020 -> 13.2"""
    return f"{number // 1000}.{number % 1000 // 10}"


def _find_cupy() -> dict[str, Any]:
    try:
        import cupy as module
    except ImportError as error:
        first = str(error).strip().partition("\n")[0]
        why = f"CuPy is not there ({first}); install ref-engine[gpu] for CUDA 13, ref-engine[gpu12] for CUDA 12"
        return {"cupy": None, "has_cupy": False, "why_no_cupy": why}
    why = why_no_device(module)
    return {"cupy": module, "has_cupy": not why, "why_no_cupy": why}


def __getattr__(name: str) -> Any:
    if name not in ("cupy", "has_cupy", "why_no_cupy"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals().update(_find_cupy())
    return globals()[name]
