"""Rotary embedding: pairs of other features, other positions, another direction, other frequencies.

A's value is turned back by what is known of the layer, and forward again with one mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ref_engine.lens.causes.scene import F64, Cause, Scene
from ref_engine.lens.dump import Turns
from ref_engine.lens.measure import nmse

NAMES = ("Qcur", "Kcur", "q_pe", "k_pe", "q-", "kv-", "indexer_q", "indexer_k", "lid_q")
BASES = (1e4, 5e5, 1e6, 1e5, 5e6, 1e7, 1.5e5, 8e6, 1e8)  # tried where neither side says
_FACTORS = (0.5, 2.0, 0.25, 4.0, 0.125, 8.0, 1 / 16, 16.0, 1 / 32, 32.0)
_WORDS = {"adjacent": "neighbours (0, 1)", "halves": "halves (0, n/2)"}


@dataclass(frozen=True)
class Mistake:
    kind: str
    text: str
    pairing: str
    times: float = 1.0  # of the position
    plus: float = 0.0

    def angles(self, positions: F64) -> F64:
        """The positions that are turned by."""
        return positions * self.times + self.plus


def rotation(s: Scene) -> Cause | None:
    """What is wrong with how B turned."""
    if not s.name.startswith(NAMES) or s.want.ndim != 3:
        return None
    for turns in known_turns(s):
        n = 2 * len(turns.frequencies)
        for first in dict.fromkeys((0, s.want.shape[-1] - n)):
            found = _mistaken(s, turns, slice(first, first + n))
            if found is not None:
                return found
    return same_lengths(s)


def known_turns(s: Scene) -> Iterator[Turns]:
    """The layer's own, or what is common."""
    own = s.turns()
    if own is not None and 0 < 2 * len(own.frequencies) <= s.want.shape[-1]:
        yield own
        return
    width = s.want.shape[-1] // 2
    for base in BASES if width else ():
        frequencies = tuple((base ** (-np.arange(width) / width)).tolist())
        yield Turns("adjacent", frequencies)
        yield Turns("halves", frequencies)


def _mistaken(s: Scene, turns: Turns, part: slice) -> Cause | None:
    frequencies = np.array(turns.frequencies)
    plain = turned(s.want[..., part], -s.positions, frequencies, turns.pairing)
    for mistake in mistakes(turns.pairing):
        value = s.want.copy()
        value[..., part] = turned(plain, mistake.angles(s.positions), frequencies, mistake.pairing)
        if s.explains(value):
            return Cause(mistake.kind, mistake.text)
    return None


def mistakes(pairing: str) -> Iterator[Mistake]:
    """What is tried, the likeliest first."""
    other = "halves" if pairing == "adjacent" else "adjacent"
    yield Mistake("rope pairing", f"B turns {_WORDS[other]}, A {_WORDS[pairing]}", other)
    for d in (1, -1, 2, -2, 3, -3):
        yield Mistake("rope position", f"B turns by position {d:+d}: off by {abs(d)}", pairing, plus=d)
    yield Mistake("rope missing", "B is not turned at all", pairing, times=0)
    yield Mistake("rope direction", "B turns the other way: the sine's sign", pairing, times=-1)
    yield Mistake("rope twice", "B is turned twice", pairing, times=2)
    for f in _FACTORS:
        yield Mistake("rope scaling", f"B turns by positions times {f:g}", pairing, times=f)


def turned(x: F64, positions: F64, frequencies: F64, pairing: str) -> F64:
    """x (T, H, n) with its pairs turned: as reference `rope`, in float64."""
    angle = positions[:, None, None] * frequencies
    cos, sin = np.cos(angle), np.sin(angle)
    y = np.empty_like(x)
    half = x.shape[-1] // 2
    first, second = (
        (slice(0, None, 2), slice(1, None, 2)) if pairing == "adjacent" else (slice(half), slice(half, None))
    )
    a, b = x[..., first], x[..., second]
    y[..., first], y[..., second] = a * cos - b * sin, a * sin + b * cos
    return y


def same_lengths(s: Scene) -> Cause | None:
    """The angles differ and nothing else: every pair is as long as A's."""
    width = s.want.shape[-1] // 2 * 2
    if width < 2:
        return None
    for pairing in ("adjacent", "halves"):
        a, b = (_pairs(x[..., :width], pairing) for x in (s.want, s.got))
        if nmse(np.abs(b), np.abs(a)) < min(0.01 * s.off, max(s.limit, 1e-8)):
            at_zero = s.positions == 0
            start = at_zero.any() and nmse(s.got[at_zero], s.want[at_zero]) < max(s.limit, 1e-8)
            text = "and position 0 agrees: other frequencies (base or scaling)" if start else "other positions"
            return Cause("rope frequencies", f"B's pairs ({_WORDS[pairing]}) are as long as A's, {text}")
    return None


def _pairs(x: F64, pairing: str) -> np.ndarray:
    half = x.shape[-1] // 2
    return x[..., 0::2] + 1j * x[..., 1::2] if pairing == "adjacent" else x[..., :half] + 1j * x[..., half:]
