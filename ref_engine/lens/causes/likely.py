"""The detectors in turn: the one that needs the fewest assumptions first."""

from __future__ import annotations

from collections.abc import Callable

from ref_engine.lens.causes.attention import mixed_values, scores
from ref_engine.lens.causes.places import another_tensor, interleaved, permuted_heads, shifted, transposed
from ref_engine.lens.causes.rope import rotation
from ref_engine.lens.causes.router import choice, weights
from ref_engine.lens.causes.scene import Cause, Scene
from ref_engine.lens.causes.values import (
    confined,
    factor,
    factor_for_each,
    narrower,
    not_finite,
    nothing_there,
    offset,
)

_BY_DESIGN = 0.5  # more than this no rounding makes of a value at once
_WHOLE: tuple[Callable[[Scene], Cause | None], ...] = (
    factor, narrower, rotation, permuted_heads, interleaved, transposed, shifted, scores, mixed_values, weights, offset,
    factor_for_each, another_tensor, confined,
)  # fmt: skip


def likely_cause(s: Scene) -> Cause | None:
    """Why this tensor left tolerance, or None where nothing gives it away."""
    if s.pair.is_ids:
        return choice(s) or confined(s)
    if broken := not_finite(s) or nothing_there(s):
        return broken
    if not s.finite or s.want.ndim < 1:
        return None
    if s.pair.printed is not None:
        return _of_print(s)
    for detect in _WHOLE:
        if found := detect(s):
            return found
    return by_design(s)


def _of_print(s: Scene) -> Cause | None:
    """Corners tell a factor or an offset; where they agree it is the rest that differs."""
    if s.off <= s.limit:
        return Cause("elsewhere", "the printed corners agree, the sum does not: the error is in what was not printed")
    return factor(s) or offset(s) or by_design(s)


def by_design(s: Scene) -> Cause | None:
    """One side rounds activations to 8 bits and the other does not."""
    if not s.by_design or s.off > _BY_DESIGN:
        return None
    return Cause(
        "quantised activations",
        f"one side rounds activations to 8 bits by design and the other does not; NMSE {s.off:.1e} is what that makes",
    )
