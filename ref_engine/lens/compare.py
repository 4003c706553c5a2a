"""Walk two dumps in the order of the graph and find the first tensor that leaves tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ref_engine.errors import RefEngineError
from ref_engine.lens.causes import Cause, Scene, likely_cause
from ref_engine.lens.dump import Dump
from ref_engine.lens.measure import Distance, distance, nmse
from ref_engine.lens.names import in_graph_order
from ref_engine.lens.pair import Mismatch, Pair, pair, straightened, worst_token, worst_unit
from ref_engine.lens.routing import Orders, same_order
from ref_engine.lens.selection import EVERYTHING, Selection, layer_of
from ref_engine.lens.tolerance import OURS_EXACT, QUIET, Tolerance, tolerance

UNIT_ROOM = 100.0  # a single unit may be off by so many times what a token may


@dataclass(frozen=True)
class Row:
    """One tensor of the comparison. status: "same", "within", "beyond", or "shapes" where no layout fits."""

    name: str
    layer: int | None
    shape: tuple[int, ...]
    status: str
    error: float  # NMSE of the worst token, or of the worst unit / 100 if that is more
    limit: float
    distance: Distance | None
    where: str = ""
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """B held against A."""

    a: Dump
    b: Dump
    tolerance: Tolerance
    rows: tuple[Row, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    first: Row | None
    cause: Cause | None

    @property
    def clean(self) -> bool:
        return self.first is None


def compare(
    a: Dump,
    b: Dump,
    given: float | None = None,
    wanted: Selection = EVERYTHING,
    advance: Callable[[int], None] = lambda n: None,
) -> Comparison:
    """Hold B against A, name by name. Raises RefEngineError where they have no name, or no token, in common.

    given: a tolerance (NMSE of the worst token) in place of what `lens.tolerance` says.
    """
    check_tokens(a, b)
    names = [name for name in _order(a, b) if wanted.wants(name)]
    if not names:
        shown = ", ".join([*list(a.tensors)[:3], "..."]), ", ".join([*list(b.tensors)[:3], "..."])
        raise RefEngineError(f"the two have no name in common: {shown[0]} against {shown[1]}")
    b = straightened(a, b)
    limit = tolerance(a.facts, b.facts, given)
    rows, first, cause, loudest, orders = [], None, None, 0.0, Orders()
    for name in names:
        row, found = _row(name, a, b, _limit_at(limit, loudest), limit, orders)
        rows.append(row)
        if row.status in ("beyond", "shapes") and first is None:
            first = row
            cause = None if found is None else likely_cause(Scene(found, a, b, limit.by_design, row.error, row.limit))
        if math.isfinite(row.error):
            loudest = max(loudest, row.error)
        advance(1)
    only_a = tuple(name for name in a.tensors if name not in b.tensors and wanted.wants(name))
    only_b = tuple(name for name in b.tensors if name not in a.tensors and wanted.wants(name))
    return Comparison(a, b, limit, tuple(rows), only_a, only_b, first, cause)


def check_tokens(a: Dump, b: Dump) -> None:
    """Raises RefEngineError if the two ran different tokens."""
    first, second = a.facts.tokens, b.facts.tokens
    if first is None or second is None or first == second:
        return
    if len(first) != len(second):
        raise RefEngineError(f"{a.source} ran {len(first)} tokens, {b.source} {len(second)}: not the same prompt")
    at = next(i for i, (x, y) in enumerate(zip(first, second, strict=True)) if x != y)
    raise RefEngineError(f"token {at} is {first[at]} in {a.source} and {second[at]} in {b.source}: not the same prompt")


def _order(a: Dump, b: Dump) -> list[str]:
    """The shared names, as the graph of whoever knows it goes."""
    shared = [name for name in a.tensors if name in b.tensors]
    ours = next((d for d in (a, b) if d.facts.engine == "ref-engine"), None)
    leader = ours or next((d for d in (a, b) if d.ordered), None)
    return in_graph_order(shared) if leader is None else [name for name in leader.tensors if name in set(shared)]


def _limit_at(limit: Tolerance, loudest: float) -> float:
    return OURS_EXACT if limit.adaptive and loudest <= QUIET else limit.limit


def _row(name: str, a: Dump, b: Dump, limit: float, overall: Tolerance, orders: Orders) -> tuple[Row, Pair | None]:
    """Measure one name. Experts that both chose, in another order, are lined up (not where the same bits are due)."""
    try:
        p = pair(name, a, b)
    except Mismatch as mismatch:
        shape = a.tensors[name].shape
        return Row(name, layer_of(name), shape, "shapes", math.inf, limit, None, "", str(mismatch)), None
    note = p.layout
    if limit > 0:
        p, reordered = same_order(p, a, b, orders)
        note = "; ".join(x for x in (note, reordered) if x)
    error = _ids_error(p) if p.is_ids else measured(p, units=not overall.by_design)
    found = distance(p.got, p.want)
    exact = found.max_abs == 0 and error == 0
    status = "same" if exact else "beyond" if error > limit or (limit == 0 and found.max_abs > 0) else "within"
    if p.totals is not None and p.totals.error > limit:
        note = "; ".join(x for x in (note, f"sums {p.totals.want:g} and {p.totals.got:g}") if x)
    if p.printed is not None and status == "within":
        note = "; ".join(x for x in (note, f"corners only, to {p.printed:.0e}") if x)
    return Row(name, layer_of(name), p.want.shape, status, error, limit, found, where(p, found.worst), note), p


def measured(p: Pair, units: bool = True) -> float:
    """The error that is held against the tolerance."""
    if p.printed is not None:
        off = np.maximum(np.abs(p.got - p.want) - p.printed, 0)
        shown = np.where(np.isfinite(off), p.want + off, p.got)
        corners = nmse(shown, p.want)
        size = float((p.want**2).mean()) if p.want.size else 0.0
        if math.isfinite(corners) and 0 < size < p.power:
            corners *= size / p.power  # a few small numbers are measured by the size of all
        return max(corners, p.totals.error if p.totals is not None else 0.0)
    return max(worst_token(p), worst_unit(p) / UNIT_ROOM if units else 0.0)


def _ids_error(p: Pair) -> float:
    """The share of tokens whose numbers differ; -1 stands for none."""
    want, got = np.moveaxis(p.want, p.axis, 0), np.moveaxis(p.got, p.axis, 0)
    differ = (want != got).reshape(want.shape[0], -1).any(axis=1)
    return float(differ.mean()) if differ.size else 0.0


def where(p: Pair, index: tuple[int, ...] | None) -> str:
    """An index in words: token 3, head 1, unit 17."""
    if index is None:
        return ""
    if p.printed is not None:
        return f"printed entry {', '.join(map(str, index))}"
    names = {1: ["unit"], 2: ["token", "unit"], 3: ["token", "head", "unit"]}.get(len(index))
    if p.axis == 1 and len(index) == 3:
        names = ["head", "token", "key" if not p.name.startswith("kqv") else "unit"]
    if names is None:
        return f"index {index}"
    at = dict(zip(names, index, strict=True))
    if p.positions is not None and "token" in at:
        at["token"] = p.positions[at["token"]]
    if p.is_ids or (p.name.startswith("ffn_moe_") and "head" in at):
        at = {{"head": "choice", "unit": "choice" if p.is_ids else "unit"}.get(k, k): v for k, v in at.items()}
    return ", ".join(f"{key} {value}" for key, value in at.items())
