"""Figures for Prometheus, in its text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


@dataclass
class _Histogram:
    counts: list[int]
    total: float = 0.0


@dataclass
class _Family:
    kind: str
    help: str
    values: dict[Labels, float] = field(default_factory=dict)
    histograms: dict[Labels, _Histogram] = field(default_factory=dict)


class Metrics:
    """Counters, histograms, and gauges that are read when they are asked for. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._families: dict[str, _Family] = {}
        self._gauges: list[tuple[str, str, Callable[[], Mapping[Labels, float]]]] = []

    def count(self, name: str, help: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter; its name ends in `_total`."""
        with self._lock:
            values = self._family(name, "counter", help).values
            key = tuple(sorted(labels.items()))
            values[key] = values.get(key, 0.0) + amount

    def observe(self, name: str, help: str, value: float, **labels: str) -> None:
        """Put a value (seconds) into a histogram."""
        with self._lock:
            histograms = self._family(name, "histogram", help).histograms
            key = tuple(sorted(labels.items()))
            histogram = histograms.setdefault(key, _Histogram([0] * (len(SECONDS) + 1)))
            histogram.counts[bisect_left(SECONDS, value)] += 1
            histogram.total += value

    def gauge(self, name: str, help: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        """A figure that `read` tells, by labels, whenever the page is asked for."""
        self._gauges.append((name, help, read))

    def _family(self, name: str, kind: str, help: str) -> _Family:
        return self._families.setdefault(name, _Family(kind, help))

    def page(self) -> str:
        lines: list[str] = []
        with self._lock:
            for name, family in sorted(self._families.items()):
                lines += _head(name, family.kind, family.help)
                lines += [f"{name}{_labels(key)} {value:.17g}" for key, value in sorted(family.values.items())]
                for key, histogram in sorted(family.histograms.items()):
                    lines += _histogram(name, key, histogram)
        for name, help, read in self._gauges:
            lines += _head(name, "gauge", help)
            lines += [f"{name}{_labels(key)} {value:.17g}" for key, value in sorted(read().items())]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, help: str) -> list[str]:
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]


def _histogram(name: str, key: Labels, histogram: _Histogram) -> Sequence[str]:
    lines, below = [], 0
    for edge, count in zip([*map(str, SECONDS), "+Inf"], histogram.counts, strict=True):
        below += count
        lines.append(f"{name}_bucket{_labels((*key, ('le', edge)))} {below}")
    return [*lines, f"{name}_sum{_labels(key)} {histogram.total:.17g}", f"{name}_count{_labels(key)} {below}"]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
