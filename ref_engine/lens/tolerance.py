"""How much two computations may differ, by what is known of them.

Errors are NMSE of the worst token. Measured (docs/numerics.md, golden/README.md): our backends have the same bits in
q8 mode and lie below 1e-10 in f32 mode; llama.cpp on unquantised weights lies below 1e-8, below 1e-5 with its table of
GELU or with keys and values in half precision, and ten times that where few keys decide; 8-bit activations move a value
by up to 1e-2, and more in late layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.lens.dump import Facts

SAME_BITS = 0.0
OURS_EXACT = 1e-9
ENGINES = 1e-5
HALF_CACHE = 1e-4
ROUNDED = 5e-2
QUIET = 1e-11  # two dumps that agree this well are of one program


@dataclass(frozen=True)
class Tolerance:
    """`limit` on the NMSE of the worst token, and in words why it is that."""

    limit: float
    why: str
    by_design: bool = False  # the two round activations differently
    adaptive: bool = False  # nothing is known: strict while everything before agreed as one program with itself


def tolerance(a: Facts, b: Facts, given: float | None) -> Tolerance:
    """What to allow between two computations."""
    designed = rounding_differs(a, b)
    if given is not None:
        return Tolerance(given, "as given", designed)
    if designed:
        return Tolerance(ROUNDED, "8-bit activations against exact ones", True)
    if a.engine == b.engine == "ref-engine":
        if a.activations == b.activations == "q8" and "cupy" not in (a.backend, b.backend):
            return Tolerance(SAME_BITS, "the same bits: q8 mode of one engine")
        return Tolerance(OURS_EXACT, "exact products of one engine")
    if a.engine is None and b.engine is None:
        return Tolerance(ENGINES, "two programs", adaptive=True)
    if "q8" in (_rounding(a, b), _rounding(b, a)):
        return Tolerance(ROUNDED, "8-bit activations of two programs")
    if "llama.cpp" in (a.engine, b.engine):
        return Tolerance(HALF_CACHE, "two programs, one with keys and values in half precision")
    return Tolerance(ENGINES, "two programs")


def rounding_differs(a: Facts, b: Facts) -> bool:
    """Whether one of the two rounds activations to 8 bits and the other does not."""
    return {_rounding(a, b), _rounding(b, a)} == {"f32", "q8"}


def _rounding(one: Facts, other: Facts) -> str | None:
    """ "q8" or "f32"; None where nobody knows.

    Without weights in blocks there is nothing to round for. llama.cpp rounds wherever there are some, and that is the
    same file on both sides as a rule.
    """
    quantised = one.quantised if one.quantised is not None else other.quantised
    if quantised is False:
        return "f32"
    if one.activations is not None:
        return one.activations
    if one.engine == "llama.cpp" and quantised:
        return "q8"
    return "f32" if one.engine == "transformers" else None
