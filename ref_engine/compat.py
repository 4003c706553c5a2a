"""The only optional imports, and whether they are there."""

from __future__ import annotations

__all__ = [
    "has_kernels",
    "has_llguidance",
    "llguidance",
    "native",
    "native_quantize",
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
