"""Looking inside: record named intermediates, or put others in their place.

    with ref_engine.trace(m, "l_out-*", "kq_soft_max-3") as t:
        m.logits(ids)
    t["l_out-3"]            # float32 (T, D)

Names are llama.cpp's graph names with the layer as suffix, so a dump of theirs and one of ours line up. Where our
layout and ggml's differ only in how axes are counted, ours is ggml's reversed: slowest first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ref_engine.reference.sums import F32

if TYPE_CHECKING:
    from ref_engine.model import Model

_TOKENS_SECOND = ("kq-", "kq_soft_max-", "kqv-")  # (H, T, ...); everything else is (T, ...)
# One entry for each key: a pass has more of them than the one before, which is filled up with this.
_NOWHERE = np.empty(0, np.int64)
_BY_KEY = {
    "kq-": 0.0,
    "kq_soft_max-": 0.0,
    "indexer_score-": -np.inf,
    "lid_score_masked-": -np.inf,
    "top_k-": -1,
}


class Tap(Protocol):
    """Somebody who looks into a model: an entry of `Model.taps`."""

    @property
    def fine(self) -> bool:
        """Whether the steps inside fused operations are wanted: the model then runs their readable composition."""

    def begin(self, positions: NDArray[np.int64]) -> None:
        """A pass begins, over tokens at these positions (T,)."""

    def see(self, name: str, value: F32) -> F32:
        """A named value; returns the value to go on with."""


@dataclass(frozen=True)
class Patch:
    """What takes the place of values whose names match; of some positions only, if those are given."""

    pattern: str
    replace: Callable[[F32], F32]
    positions: frozenset[int] | None = None

    def applied(self, name: str, value: F32, positions: NDArray[np.int64]) -> F32:
        if not fnmatchcase(name, self.pattern):
            return value
        if self.positions is None:
            return checked_patch(name, value, self.replace(value.copy()))
        axis = token_axis(name)
        rows = np.flatnonzero(np.isin(positions[-value.shape[axis] :], sorted(self.positions)))
        if value.shape[axis] > positions.size:
            raise ValueError(f"patch of {name}: its {value.shape[axis]} rows are not tokens, so it has no positions")
        if not rows.size:
            return value
        chosen = value.take(rows, axis=axis)
        new = value.copy()
        new[(slice(None),) * axis + (rows,)] = checked_patch(name, chosen, self.replace(chosen.copy()))
        return new


def checked_patch(name: str, old: F32, new: object) -> F32:
    """The new value in the old one's type. Raises ValueError for another shape, and for ids that are no integers."""
    given = np.asarray(new)
    if given.shape != old.shape:
        raise ValueError(f"patch of {name}: shape {given.shape}, expected {old.shape}")
    if old.dtype.kind == "i":
        limits = np.iinfo(str(old.dtype))
        whole = np.isfinite(given) & (given == np.floor(given)) & (given >= limits.min) & (given <= limits.max)
        if not whole.all():
            raise ValueError(f"patch of {name}: {given[~whole].flat[0]} is not an {old.dtype} number")
    return given.astype(old.dtype)


def token_axis(name: str) -> int:
    """Which axis of a named value counts tokens: 1 for what attention computes head by head, else 0."""
    return 1 if name.startswith(_TOKENS_SECOND) else 0


def by_key(name: str) -> bool:
    """Whether the last axis has an entry for each key, and so grows from pass to pass."""
    return name.startswith(tuple(_BY_KEY))


def missing_key(name: str) -> float:
    """What stands for the keys that a pass did not have yet."""
    return next((value for prefix, value in _BY_KEY.items() if name.startswith(prefix)), 0.0)


class Trace(Mapping[str, F32]):
    """What was recorded, by name, while the context was open.

    Several forward passes (a long prompt in chunks, generated tokens) give several values for a name: `calls(name)`
    lists them, `t[name]` joins them along the token axis.
    """

    def __init__(self, model: Model, patterns: tuple[str, ...]) -> None:
        self._model = model
        self._patterns = patterns
        self._recorded: dict[str, list[F32]] = {}
        self._patches: list[Patch] = []
        self._passes: list[NDArray[np.int64]] = []

    fine = True  # names of every depth may be asked for

    def patch(self, pattern: str, replace: Callable[[F32], F32], positions: Collection[int] | None = None) -> None:
        """From now on the computation goes on with `replace(value)` wherever `pattern` matches.

        The new value must have the old one's shape; it is what is recorded. Of values that are numbers of something
        (ffn_moe_topk: of experts) it must be whole numbers; one that no expert has ends the pass with a ModelError.
        positions: `replace` is given, and gives, the rows of these tokens alone.
        """
        self._patches.append(Patch(pattern, replace, None if positions is None else frozenset(positions)))

    def begin(self, positions: NDArray[np.int64]) -> None:
        """Called by the model when a pass begins. What follows the layers may have the rows of several passes."""
        self._passes.append(positions)

    def __enter__(self) -> Trace:
        self._model.taps.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._model.taps.remove(self)

    def see(self, name: str, value: F32) -> F32:
        """Called by the wiring with each named value; returns the value to go on with."""
        for patch in self._patches:
            positions = np.concatenate(self._passes) if patch.positions is not None else _NOWHERE
            value = patch.applied(name, value, positions)
        if any(fnmatchcase(name, pattern) for pattern in self._patterns):
            self._recorded.setdefault(name, []).append(value.copy())
        return value

    def calls(self, name: str) -> list[F32]:
        """The values of `name`, one for each forward pass."""
        return list(self._recorded[name])

    def __getitem__(self, name: str) -> F32:
        values = self._recorded[name]
        if by_key(name):
            width = max(v.shape[-1] for v in values)
            gaps = [[(0, 0)] * (v.ndim - 1) + [(0, width - v.shape[-1])] for v in values]
            fill = missing_key(name)
            values = [np.pad(v, gap, constant_values=fill) for v, gap in zip(values, gaps, strict=True)]
        return values[0] if len(values) == 1 else np.concatenate(values, axis=token_axis(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._recorded)

    def __len__(self) -> int:
        return len(self._recorded)


def trace(model: Model, *patterns: str) -> Trace:
    """A context that records every intermediate of `model` whose name matches one of the glob patterns.

    No pattern means every name. Raises nothing for a pattern that matches nothing: the trace is then empty.
    """
    return Trace(model, patterns or ("*",))
