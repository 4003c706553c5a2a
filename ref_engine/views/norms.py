"""How large the values of a computation are, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError
from ref_engine.model import Model
from ref_engine.spec import LayerSpec
from ref_engine.views.passes import Steps, finished, passes, shown_name, window

NAMES = ("attn_norm", "attn_out", "ffn_inp", "ffn_norm", "ffn_out", "l_out")
"""What every family has, where it has it: what a half reads, what it gives, and the stream after it."""


@dataclass(frozen=True)
class Norms:
    """Root mean squares by name, each (L, T) float64; NaN where a layer has no such value.

    names: those that some layer has. T are the positions from `start`.
    """

    start: int
    names: tuple[str, ...]
    values: dict[str, NDArray[np.float64]]


def norms_steps(
    model: Model, ids: Sequence[int], names: Sequence[str] = NAMES, start: int | None = None, stop: int | None = None
) -> Steps[Norms]:
    """As `norms`."""
    known = model.checked_ids(ids).tolist()
    first, last = window(len(known), start, stop)
    shown = {
        (name, i): found
        for name in names
        for i, layer in enumerate(model.spec.layers)
        if (found := _shown(layer, i, name)) is not None
    }
    values = {name: np.full((model.spec.n_layer, last - first), np.nan) for name in names}
    for piece in passes(model, known[:last] if model.spec.causal else known, set(shown.values())):
        yield
        begin, end = max(first, piece.start), min(last, piece.stop)
        for (name, i), found in shown.items():
            if begin < end and found in piece.seen:
                rows = piece.seen[found][begin - piece.start : end - piece.start]
                values[name][i, begin - first : end - first] = root_mean_square(rows)
    there = tuple(name for name in names if not np.isnan(values[name]).all())
    if not there:
        raise RefEngineError(f"no layer of this model has a value called {' or '.join(names)}")
    return Norms(first, there, {name: values[name] for name in there})


def norms(
    model: Model, ids: Sequence[int], names: Sequence[str] = NAMES, start: int | None = None, stop: int | None = None
) -> Norms:
    """For a text ids (T,), or its positions start .. stop - 1. names: of values (T, ...), without the layer's number.

    A family's own names for these six come under the usual ones. Raises RefEngineError where nothing has such a name.
    """
    return finished(norms_steps(model, ids, names, start, stop))


def _shown(layer: LayerSpec, index: int, name: str) -> str | None:
    own = {"ffn_inp": layer.stream_name, "ffn_norm": layer.ffn_norm_name}.get(name, name)
    return shown_name(layer, index, own)


def root_mean_square(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """(T, ...) -> (T,)"""
    flat = x.reshape(x.shape[0], -1).astype(np.float64)
    return np.asarray(np.sqrt((flat * flat).mean(axis=-1)))
