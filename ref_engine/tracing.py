"""Looking inside: record named intermediates, or put others in their place.

    with ref_engine.trace(m, "l_out-*", "kq_soft_max-3") as t:
        m.logits(ids)
    t["l_out-3"]            # float32 (T, D)

Names are llama.cpp's graph names with the layer as suffix, so a dump of theirs and one of ours line up. Where our
layout and ggml's differ only in how axes are counted, ours is ggml's reversed: slowest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ref_engine.reference.sums import F32

if TYPE_CHECKING:
    from ref_engine.model import Model

_TOKENS_SECOND = ("kq-", "kq_soft_max-", "kqv-")  # (H, T, ...); everything else is (T, ...)
# One entry for each key: a pass has more of them than the one before, which is filled up with this.
_BY_KEY = {"kq-": 0.0, "kq_soft_max-": 0.0, "indexer_score-": -np.inf, "top_k-": -1}


class Trace(Mapping[str, F32]):
    """What was recorded, by name, while the context was open.

    Several forward passes (a long prompt in chunks, generated tokens) give several values for a name: `calls(name)`
    lists them, `t[name]` joins them along the token axis.
    """

    def __init__(self, model: Model, patterns: tuple[str, ...]) -> None:
        self._model = model
        self._patterns = patterns
        self._recorded: dict[str, list[F32]] = {}
        self._patches: list[tuple[str, Callable[[F32], F32]]] = []

    def patch(self, pattern: str, replace: Callable[[F32], F32]) -> None:
        """From now on the computation goes on with `replace(value)` wherever `pattern` matches.

        The new value must have the old one's shape; it is what is recorded.
        """
        self._patches.append((pattern, replace))

    def __enter__(self) -> Trace:
        self._model.taps.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._model.taps.remove(self)

    def see(self, name: str, value: F32) -> F32:
        """Called by the wiring with each named value; returns the value to go on with."""
        for pattern, replace in self._patches:
            if fnmatchcase(name, pattern):
                new = np.asarray(replace(value.copy()), value.dtype)
                if new.shape != value.shape:
                    raise ValueError(f"patch of {name}: shape {new.shape}, expected {value.shape}")
                value = new
        if any(fnmatchcase(name, pattern) for pattern in self._patterns):
            self._recorded.setdefault(name, []).append(value.copy())
        return value

    def calls(self, name: str) -> list[F32]:
        """The values of `name`, one for each forward pass."""
        return list(self._recorded[name])

    def __getitem__(self, name: str) -> F32:
        values = self._recorded[name]
        axis = 1 if name.startswith(_TOKENS_SECOND) else 0
        for prefix, missing in _BY_KEY.items():
            if name.startswith(prefix):
                width = max(v.shape[-1] for v in values)
                gaps = [[(0, 0)] * (v.ndim - 1) + [(0, width - v.shape[-1])] for v in values]
                values = [np.pad(v, gap, constant_values=missing) for v, gap in zip(values, gaps, strict=True)]
        return values[0] if len(values) == 1 else np.concatenate(values, axis=axis)

    def __iter__(self) -> Iterator[str]:
        return iter(self._recorded)

    def __len__(self) -> int:
        return len(self._recorded)


def trace(model: Model, *patterns: str) -> Trace:
    """A context that records every intermediate of `model` whose name matches one of the glob patterns.

    No pattern means every name. Raises nothing for a pattern that matches nothing: the trace is then empty.
    """
    return Trace(model, patterns or ("*",))
