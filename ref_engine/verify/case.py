"""One thing to verify, what was found, and how arrays are judged against what they should be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.divergence import log_softmax
from ref_engine.errors import RefEngineError
from ref_engine.lens.measure import distance, row_nmse

Array = NDArray[Any]


class NotHere(RefEngineError):
    """A case that cannot be run here: a file is not in the cache, an engine does not offer what is asked for."""


@dataclass(frozen=True)
class Finding:
    """What a case found. `figures` are the numbers measured, `limit` says in words what was asked of them."""

    passed: bool
    message: str = ""  # why not, in one line; or a remark
    limit: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    worst: tuple[int, ...] | None = None  # index of the largest difference
    got: float | None = None
    want: float | None = None


@dataclass(frozen=True)
class Case:
    """`id` never changes: PACK/WHAT/OPERATION. `type` is a weight type or a mode, "" where there is none."""

    id: str
    operation: str
    type: str
    run: Callable[[], Finding]


def failed(message: str) -> Finding:
    return Finding(False, message)


def within(got: Array, want: Array, limit: float) -> Finding:
    """NMSE over all values at most `limit`."""
    return _near(got, want, limit, "nmse", lambda: {})


def rows_within(got: Array, want: Array, limit: float) -> Finding:
    """NMSE of every row (a token's) at most `limit`; the worst row counts."""
    return _near(got, want, limit, "worst row's nmse", lambda: {"worst row's nmse": float(row_nmse(got, want).max())})


def _near(got: Array, want: Array, limit: float, figure: str, more: Callable[[], dict[str, float]]) -> Finding:
    wrong = shape_fault(got, want)
    if wrong is not None:
        return wrong
    found = measured(got, want)
    found = replace(found, figures={**found.figures, **more()}, limit=f"{figure} <= {limit:.3g}")
    value = found.figures[figure]
    if value <= limit:
        return found
    return replace(found, passed=False, message=f"{figure} {value:.3g} > {limit:.3g}{_where(found)}")


def same_bits(got: Array, want: Array) -> Finding:
    """The same bits, but any NaN equals any NaN."""
    wrong = shape_fault(got, want)
    if wrong is not None:
        return wrong
    if got.dtype != want.dtype:
        return failed(f"values are {got.dtype}, expected {want.dtype}")
    if want.dtype == np.float32:
        nan = np.isnan(want)
        plain = np.ascontiguousarray(got).view(np.uint32) == np.ascontiguousarray(want).view(np.uint32)
        equal = np.where(nan, np.isnan(got), plain)
    else:
        equal = got == want
    found = measured(got, want)
    n = int(equal.size - np.count_nonzero(equal))
    found = replace(found, figures={**found.figures, "differing": float(n)}, limit="the same bits")
    if n == 0:
        return found
    first = tuple(int(i) for i in np.argwhere(~equal)[0])
    return replace(
        found,
        passed=False,
        message=f"{n} of {equal.size} values differ, first at {list(first)}{_where(found)}",
    )


def shape_fault(got: Array, want: Array) -> Finding | None:
    if got.shape != want.shape:
        return failed(f"shape {list(got.shape)}, expected {list(want.shape)}")
    return None


def measured(got: Array, want: Array) -> Finding:
    """NMSE, largest difference in value and in units in the last place, and where."""
    far = distance(got, want)
    figures = {"nmse": far.nmse, "max_abs": far.max_abs, "max_ulp": far.max_ulp}
    if far.clashes:
        figures["not finite"] = float(far.clashes)
    if far.max_abs == 0:
        return Finding(True, "", "", figures)
    return Finding(True, "", "", figures, far.worst, far.got, far.want)


def judged_logits(got: Array, want: Array, limit: float, by_row: bool) -> Finding:
    """As `rows_within` or `within`, with the mean KL divergence of got from want and how often both put the same token
    first."""
    found = rows_within(got, want, limit) if by_row else within(got, want, limit)
    if got.shape != want.shape or not np.isfinite(got).all():
        bad = "" if got.shape != want.shape else f"{int((~np.isfinite(got)).sum())} logits are not finite; "
        return replace(found, passed=False, message=bad + found.message)
    kl = 0.0
    for mine, theirs in zip(got, want, strict=True):
        p, q = log_softmax(theirs.astype(np.float32)), log_softmax(mine.astype(np.float32))
        kl += float((np.exp(p) * (p - q)).sum())
    top = float((got.argmax(-1) == want.argmax(-1)).mean())
    return replace(found, figures={**found.figures, "kl": kl / max(1, len(want)), "top1": top})


def _where(found: Finding) -> str:
    if found.worst is None or found.got is None or found.want is None:
        return ""
    if math.isnan(found.figures.get("nmse", 0.0)):
        return ""
    return f"; worst at {list(found.worst)}: {found.got:.8g}, expected {found.want:.8g}"
