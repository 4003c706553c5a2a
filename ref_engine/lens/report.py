"""A comparison as data and as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ref_engine.lens.compare import Comparison, Row
from ref_engine.lens.dump import Dump

_LISTED = 8  # names on one side only


def as_json(c: Comparison) -> dict[str, Any]:
    """Everything, for --json: `clean`, `first`, `cause`, every tensor, the names on one side only."""
    return {
        "clean": c.clean,
        "a": _side(c.a),
        "b": _side(c.b),
        "tolerance": {"nmse": c.tolerance.limit, "why": c.tolerance.why, "by_design": c.tolerance.by_design},
        "first": None if c.first is None else _row(c.first),
        "cause": None if c.cause is None else asdict(c.cause),
        "counts": dict(Counter(row.status for row in c.rows)),
        "tensors": [_row(row) for row in c.rows],
        "only_a": c.only_a,
        "only_b": c.only_b,
    }


def _side(dump: Dump) -> dict[str, Any]:
    f = dump.facts
    return {
        "source": dump.source,
        "engine": f.engine,
        "backend": f.backend,
        "activations": f.activations,
        "path": f.path,
        "tokens": None if f.tokens is None else len(f.tokens),
    }


def _row(row: Row) -> dict[str, Any]:
    d = row.distance
    return {
        "name": row.name,
        "layer": row.layer,
        "shape": row.shape,
        "status": row.status,
        "error": row.error,
        "limit": row.limit,
        "nmse": None if d is None else d.nmse,
        "max_abs": None if d is None else d.max_abs,
        "max_ulp": None if d is None else d.max_ulp,
        "median_ulp": None if d is None else d.median_ulp,
        "worst": None if d is None else d.worst,
        "where": row.where,
        "a": None if d is None else d.want,
        "b": None if d is None else d.got,
        "note": row.note,
    }


def lines(c: Comparison) -> Iterator[str]:
    """What a terminal shows: the verdict first."""
    counts = Counter(row.status for row in c.rows)
    yield f"A  {_described(c.a)}"
    yield f"B  {_described(c.b)}"
    said = ", ".join(f"{n} {word}" for word, n in sorted(counts.items()))
    yield f"{len(c.rows)} tensors compared: {said}; tolerance {c.tolerance.limit:.0e} ({c.tolerance.why})"
    for side, names in (("A", c.only_a), ("B", c.only_b)):
        if names:
            more = f", ... ({len(names)})" if len(names) > _LISTED else ""
            yield f"only in {side}: {', '.join(names[:_LISTED])}{more}"
    if c.first is None:
        loudest = max(c.rows, key=lambda row: row.error)
        yield f"clean: the largest error is {loudest.error:.1e} at {loudest.name}"
        if c.tolerance.by_design:
            yield "one side rounds activations to 8 bits by design; what is smaller than that cannot be seen here"
        return
    yield f"first beyond tolerance: {c.first.name}"
    yield from (f"  {line}" for line in _details(c.first))
    yield f"  likely cause: {c.cause.kind}: {c.cause.text}" if c.cause else "  no known mistake explains the numbers"


def _details(row: Row) -> Iterator[str]:
    d = row.distance
    if d is None:
        yield row.note
        return
    yield f"NMSE {d.nmse:.3e}, worst token {row.error:.3e} (limit {row.limit:.0e})"
    yield f"max abs {d.max_abs:.3e}, max ULP {d.max_ulp:.3g}, median ULP {d.median_ulp:.3g}"
    yield f"worst at {row.where or 'index 0'}: A {d.want:.9g}, B {d.got:.9g}"
    if d.clashes:
        yield f"{d.clashes} values are not finite on one side"
    if row.note:
        yield row.note


def _described(dump: Dump) -> str:
    f = dump.facts
    known = " ".join(x for x in (f.engine, f.backend, f.activations, f.path) if x)
    return f"{dump.source} ({known})" if known else dump.source


def table_rows(c: Comparison) -> list[tuple[str, ...]]:
    """NAME SHAPE STATUS ERROR MAX-ABS ULP WORST NOTE, every tensor in graph order."""
    rows: list[tuple[str, ...]] = []
    for row in c.rows:
        d = row.distance
        size = "x".join(map(str, row.shape))
        numbers = ("", "") if d is None else (f"{d.max_abs:.2e}", f"{d.max_ulp:.3g}")
        rows.append((row.name, size, row.status, f"{row.error:.2e}", *numbers, row.where, row.note))
    return rows
