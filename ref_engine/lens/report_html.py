"""A comparison as one HTML file that needs nothing else: a plot of error over depth, and a table of every tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from ref_engine.lens.compare import Comparison
from ref_engine.lens.report import lines, table_rows

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 960, 320, 56, 40
_LEAST, _MOST = -16.0, 2.0  # powers of ten that the plot reaches
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#d0d7de;--good:#1a7f37;--bad:#cf222e;--far:#9a6700}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--line:#30363d;--good:#3fb950;--bad:#ff7b72;--far:#d29922}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;max-width:64rem;
padding:0 1rem}
pre{white-space:pre-wrap;border:1px solid var(--line);padding:.75rem}
svg{width:100%;height:auto}svg text{fill:var(--ink);font-size:11px}
.grid{stroke:var(--line)}.limit{stroke:var(--bad);stroke-dasharray:5 4}.depth{stroke:var(--line);stroke-width:.5}
.same,.within{fill:var(--good)}.beyond,.shapes{fill:var(--bad)}
table{border-collapse:collapse;width:100%;font-size:13px}td,th{border-bottom:1px solid var(--line);padding:.2rem .5rem;
text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}
tr.beyond td,tr.shapes td{color:var(--bad)}tr.first td{font-weight:bold}
"""


def html(c: Comparison) -> str:
    """The whole page."""
    verdict = "clean" if c.first is None else f"first beyond tolerance: {c.first.name}"
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(verdict)}</title><style>{_STYLE}</style></head><body>\n",
            f"<h1>{escape(verdict)}</h1>\n<pre>{escape(chr(10).join(lines(c)))}</pre>\n",
            f"<h2>Error over depth</h2>\n{plot(c)}\n<h2>Every tensor</h2>\n{_table(c)}",
            "</body></html>\n",
        ]
    )


def plot(c: Comparison) -> str:
    """Points in graph order, NMSE of the worst token on a scale of powers of ten; equal values lie at the bottom."""
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="error of each tensor in the order of the graph">'
    ]
    for power in range(int(_LEAST), int(_MOST) + 1, 2):
        y = _y(10.0**power)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    parts += _layers(c)
    if c.tolerance.limit > 0:
        y = _y(c.tolerance.limit)
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for i, row in enumerate(c.rows):
        size = 6 if row is c.first else 3
        parts.append(
            f'<circle class="{row.status}" cx="{_x(i, c):.1f}" cy="{_y(row.error):.1f}" r="{size}">'
            f"<title>{escape(row.name)}: {row.error:.2e}</title></circle>"
        )
    return "".join([*parts, "</svg>"])


def _layers(c: Comparison) -> Iterator[str]:
    """A line where a layer begins, and the numbers of some."""
    starts: dict[int, int] = {}
    for i, row in enumerate(c.rows):
        if row.layer is not None:
            starts.setdefault(row.layer, i)
    every = max(1, math.ceil(len(starts) / 24))
    for place, (layer, i) in enumerate(starts.items()):
        x = _x(i, c)
        yield f'<line class="depth" x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{_HEIGHT - _BOTTOM}"/>'
        if place % every == 0:
            yield f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}">{layer}</text>'
    yield f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle">layer</text>'


def _x(i: int, c: Comparison) -> float:
    return _LEFT + 8 + i * (_WIDTH - _LEFT - 20) / max(1, len(c.rows) - 1)


def _y(error: float) -> float:
    power = _MOST if not math.isfinite(error) else _LEAST if error <= 0 else math.log10(error)
    share = (min(max(power, _LEAST), _MOST) - _LEAST) / (_MOST - _LEAST)
    return 8 + (1 - share) * (_HEIGHT - _BOTTOM - 8)


def _table(c: Comparison) -> str:
    heads = ("Name", "Shape", "Status", "Error", "Max abs", "Max ULP", "Worst at", "Note")
    parts = ["<table><thead><tr>", *(f"<th>{head}</th>" for head in heads), "</tr></thead><tbody>\n"]
    for row, cells in zip(c.rows, table_rows(c), strict=True):
        first = " first" if row is c.first else ""
        parts.append(f'<tr class="{row.status}{first}">{_cells(cells)}</tr>\n')
    return "".join([*parts, "</tbody></table>\n", *_one_sided(c)])


def _cells(cells: tuple[str, ...]) -> str:
    return "".join(f"<td{' class=n' if 3 <= i <= 5 else ''}>{escape(cell)}</td>" for i, cell in enumerate(cells))


def _one_sided(c: Comparison) -> Iterator[str]:
    for side, names in (("A", c.only_a), ("B", c.only_b)):
        if names:
            yield f"<h2>Only in {side}: {len(names)}</h2><p>{escape(', '.join(names))}</p>\n"
