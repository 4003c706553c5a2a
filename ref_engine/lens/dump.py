"""Named values of one computation, whoever made them, and what is known about how they were made.

A value is read when it is asked for, one at a time, so a dump may be larger than memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError

Array = NDArray[Any]
VERSION = 1
_MOST_TOKENS = 1 << 24


@dataclass(frozen=True)
class Printed:
    """What a text shows of a tensor: its corners, to so many digits, and the sum of all."""

    kept: tuple[tuple[int, ...], ...]  # for each axis, slowest first, the indices that were printed
    values: NDArray[np.float64]  # (len(kept[0]), len(kept[1]), ...)
    total: float | None  # sum over the whole tensor, added in float32 from the first to the last
    resolution: float  # a printed value may be off by this much


@dataclass(frozen=True)
class Tensor:
    """One named value. shape: slowest axis first. `load` gives all of it; `printed` instead is what a text shows."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], Array] | None
    printed: Printed | None = None


@dataclass(frozen=True)
class Turns:
    """The rotary embedding of a layer: which features make a pair, and each pair's angle per position in radians."""

    pairing: str  # "adjacent" or "halves"
    frequencies: tuple[float, ...]


@dataclass(frozen=True)
class Facts:
    """What is known of the computation; None and empty: not said."""

    engine: str | None = None  # "ref-engine", "llama.cpp", "transformers"
    model: str | None = None
    architecture: str | None = None
    backend: str | None = None
    activations: str | None = None  # "f32" or "q8"
    path: str | None = None  # "composition" or "fused"
    quantised: bool | None = None  # whether a weight is of a block type
    tokens: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None  # of the rows; None: all tokens
    turns: Mapping[int, Turns] = field(default_factory=dict)  # by layer
    n_layers: int | None = None
    causal: bool | None = None


@dataclass(frozen=True)
class Dump:
    """Tensors by name; in the order of the graph if `ordered`."""

    source: str
    tensors: Mapping[str, Tensor]
    facts: Facts = Facts()
    ordered: bool = True

    def renamed(self, names: Mapping[str, str]) -> Dump:
        """The same with other names; one that two tensors would have is an error."""
        tensors: dict[str, Tensor] = {}
        for name, tensor in self.tensors.items():
            new = names.get(name, name)
            if new in tensors:
                raise RefEngineError(f"{self.source}: two tensors would be called {new!r}")
            tensors[new] = replace(tensor, name=new)
        return replace(self, tensors=tensors)


def of_arrays(source: str, arrays: Mapping[str, Array], facts: Facts = Facts(), ordered: bool = True) -> Dump:
    """A dump of arrays in memory."""

    def tensor(name: str, array: Array) -> Tensor:
        return Tensor(name, array.shape, lambda: array)

    return Dump(source, {name: tensor(name, np.asarray(array)) for name, array in arrays.items()}, facts, ordered)


def header(facts: Facts, names: list[str]) -> dict[str, Any]:
    """What a trace file says about itself, ready for JSON: format, version, the facts, the names in graph order."""
    tables = sorted({(t.pairing, t.frequencies) for t in facts.turns.values()})
    found = asdict(replace(facts, turns={}))
    found["turns"] = {
        "tables": [{"pairing": pairing, "frequencies": list(frequencies)} for pairing, frequencies in tables],
        "layers": {str(i): tables.index((t.pairing, t.frequencies)) for i, t in facts.turns.items()},
    }
    return {"format": "ref-engine trace", "version": VERSION, **found, "order": names}


def read_header(text: str, source: str) -> tuple[Facts, list[str]]:
    """The facts and the order of names in a trace's header. Raises RefEngineError for one that is damaged."""
    try:
        given = json.loads(text)
        if not isinstance(given, dict) or given.get("format") != "ref-engine trace":
            raise ValueError("no header of a trace")
        if given.get("version") != VERSION:
            raise ValueError(f"version {given.get('version')!r}, this program reads {VERSION}")
        order = [str(name) for name in given.get("order", [])]
        facts = Facts(
            **{key: _text(given, key) for key in ("engine", "model", "architecture", "backend", "activations", "path")},
            quantised=_flag(given, "quantised"),
            causal=_flag(given, "causal"),
            tokens=_numbers(given, "tokens"),
            positions=_numbers(given, "positions"),
            turns=_turns(given.get("turns") or {}),
            n_layers=None if given.get("n_layers") is None else int(given["n_layers"]),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise RefEngineError(f"{source}: damaged trace header: {error}") from error
    return facts, order


def _text(given: Mapping[str, Any], key: str) -> str | None:
    value = given.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value


def _flag(given: Mapping[str, Any], key: str) -> bool | None:
    value = given.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} is neither true nor false")
    return value


def _numbers(given: Mapping[str, Any], key: str) -> tuple[int, ...] | None:
    value = given.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > _MOST_TOKENS:
        raise ValueError(f"{key} is no list of numbers")
    if not all(isinstance(i, int) and 0 <= i < 1 << 31 for i in value):
        raise ValueError(f"{key} holds something that is no token or position")
    return tuple(value)


def _turns(given: Mapping[str, Any]) -> dict[int, Turns]:
    tables = [Turns(str(t["pairing"]), tuple(float(f) for f in t["frequencies"])) for t in given.get("tables", [])]
    if any(t.pairing not in ("adjacent", "halves") for t in tables):
        raise ValueError("unknown pairing")
    return {int(layer): tables[int(i)] for layer, i in given.get("layers", {}).items()}
