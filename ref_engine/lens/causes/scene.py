"""What a detector is given, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.lens.dump import Dump, Turns
from ref_engine.lens.measure import nmse
from ref_engine.lens.pair import Pair
from ref_engine.lens.routing import fetched
from ref_engine.lens.selection import layer_of

Array = NDArray[Any]
F64 = NDArray[np.float64]
_REMAINS = 0.02  # of the error, where both round alike
_FLOOR = 1e-10  # what float32 leaves of anything


@dataclass(frozen=True)
class Cause:
    """kind: one word or two, always the same for the same cause. text: a sentence with the figures."""

    kind: str
    text: str


@dataclass(frozen=True)
class Scene:
    """The first tensor that left tolerance, and the two dumps around it."""

    pair: Pair
    a: Dump
    b: Dump
    by_design: bool
    error: float
    limit: float

    @property
    def name(self) -> str:
        return self.pair.name

    @property
    def layer(self) -> int | None:
        return layer_of(self.name)

    @cached_property
    def want(self) -> F64:
        """A's value with the tokens first: (T, ...)"""
        return np.moveaxis(self.pair.want, self.pair.axis, 0).astype(np.float64)

    @cached_property
    def got(self) -> F64:
        """B's value, likewise."""
        return np.moveaxis(self.pair.got, self.pair.axis, 0).astype(np.float64)

    @cached_property
    def off(self) -> float:
        """The NMSE that has to be explained, of all tokens together."""
        return nmse(self.got, self.want)

    @property
    def positions(self) -> F64:
        n = self.want.shape[0]
        given = self.pair.positions
        return np.array(given if given is not None and len(given) == n else range(n), np.float64)

    def near(self, stem: str) -> Pair | None:
        """Both values of another name of the same layer, whole."""
        return fetched(stem if self.layer is None else f"{stem}-{self.layer}", self.a, self.b)

    def turns(self) -> Turns | None:
        """How this layer turns queries and keys, if either side says."""
        for facts in (self.a.facts, self.b.facts):
            if self.layer is not None and self.layer in facts.turns:
                return facts.turns[self.layer]
        return None

    def explains(self, value: Array) -> bool:
        """Whether `value`, laid out like `got`, leaves next to nothing of the error."""
        return explained(value, self.got, self.off, self.limit)

    @cached_property
    def finite(self) -> bool:
        return bool(np.isfinite(self.want).all() and np.isfinite(self.got).all())


def explained(value: Array, got: Array, off: float, limit: float) -> bool:
    """The rule for all detectors: what remains is under a fiftieth of the error, or lost in rounding."""
    remains = nmse(got, value)
    return remains < _REMAINS * off and (remains <= max(limit, _FLOOR) or remains < 1e-3 * off)
