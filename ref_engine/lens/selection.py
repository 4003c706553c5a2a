"""Which values of a pass are wanted: by name, by layer, by position."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ref_engine.errors import RefEngineError

_RANGE = re.compile(r"(-?\d{1,9})(?:-(-?\d{1,9}))?")
_LAYER = re.compile(r".*-(\d{1,9})")


@dataclass(frozen=True)
class Selection:
    """Names by glob; of names that belong to a layer those of `layers`; rows of `positions`. None: all."""

    names: tuple[str, ...] = ("*",)
    layers: frozenset[int] | None = None
    positions: tuple[int, ...] | None = None  # ascending

    def wants(self, name: str) -> bool:
        layer = layer_of(name)
        if self.layers is not None and layer is not None and layer not in self.layers:
            return False
        return any(fnmatchcase(name, pattern) for pattern in self.names)


EVERYTHING = Selection()


def layer_of(name: str) -> int | None:
    """l_out-3 -> 3; result_norm -> None"""
    match = _LAYER.fullmatch(name)
    return int(match[1]) if match else None


def select(names: Sequence[str], layers: str | None, positions: str | None, n_layers: int, n_tokens: int) -> Selection:
    """From what a command was given: globs (several in one string by commas), `0-3,7`, `0,5-9,-1`.

    Negative layers and positions count from the end. Raises RefEngineError for what is no such list or out of range.
    """
    globs = tuple(part for text in names for part in re.split(r"[\s,]+", text) if part)
    return Selection(
        globs or ("*",),
        None if layers is None else frozenset(numbers(layers, n_layers, "layer")),
        None if positions is None else numbers(positions, n_tokens, "position"),
    )


def numbers(text: str, n: int, what: str) -> tuple[int, ...]:
    """`0,5-9,-1` of n things -> their numbers, ascending, each once."""
    found: set[int] = set()
    for item in re.split(r"[\s,]+", text.strip()):
        match = _RANGE.fullmatch(item)
        if match is None:
            raise RefEngineError(f"{item[:50]!r} is not a {what}; expected such as 0,5-9,-1")
        first, last = (_counted(int(end), n, what) for end in (match[1], match[2] or match[1]))
        if first > last:
            raise RefEngineError(f"{what}s {item} run backwards")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def _counted(i: int, n: int, what: str) -> int:
    if not -n <= i < n:
        raise RefEngineError(f"{what} {i} is not one of 0..{n - 1}")
    return i % n
