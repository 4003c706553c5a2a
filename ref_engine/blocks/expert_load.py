"""How often each expert was used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ref_engine.place import to_host


class ExpertLoad:
    """Counts of tokens sent to each expert, by layer, since the start or the last `reset`.

    A token that is computed again (after a rollback, or by a model that sees its whole sequence) counts again.
    """

    def __init__(self) -> None:
        self._counts: dict[int, NDArray[np.int64]] = {}

    def add(self, layer: int, ids: NDArray[np.int32], n_expert: int) -> None:
        """Count the chosen experts ids (T, k) of one pass."""
        if isinstance(ids, np.ndarray):
            counts = np.bincount(ids.reshape(-1), minlength=n_expert)
        else:  # of a device, where they stay until somebody asks; a count by comparison does not wait for it
            counts = (ids.reshape(-1, 1) == np.arange(n_expert, dtype=np.int32, like=ids)).sum(axis=0)
        self._counts[layer] = counts if layer not in self._counts else self._counts[layer] + counts

    @property
    def counts(self) -> dict[int, NDArray[np.int64]]:
        """(E,) for each layer that has experts and has run."""
        return {layer: to_host(counts).copy() for layer, counts in self._counts.items()}

    def reset(self) -> None:
        self._counts.clear()
