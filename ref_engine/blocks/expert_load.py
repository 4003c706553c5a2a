"""How often each expert was used."""

from __future__ import annotations

from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from ref_engine.ops import CountExperts
from ref_engine.place import to_host
from ref_engine.reference.moe import Ids


class ExpertLoad:
    """Counts of tokens sent to each expert, by layer, since the start or the last `reset`.

    A token that is computed again (after a rollback, or by a model that sees its whole sequence) counts again.
    """

    def __init__(self) -> None:
        self._counts: dict[int, NDArray[np.int64]] = {}
        self._lent: list[ExpertLoad] = []

    def add(self, layer: int, ids: Ids, n_expert: int, count: CountExperts) -> None:
        """Count the chosen experts ids (T, k) of one pass; on a device, where the counts stay until somebody asks."""
        self._counts[layer] = count(ids, n_expert, self._counts.get(layer))

    def of(self, layer: int, n_expert: int) -> NDArray[np.int64]:
        """The counts of a layer (E,), for whoever adds to them himself, now."""
        if layer not in self._counts:
            self._counts[layer] = np.zeros(n_expert, np.int64)
        return self._counts[layer]

    @property
    def counts(self) -> dict[int, NDArray[np.int64]]:
        """(E,) for each layer that has experts and has run."""
        total = {layer: to_host(counts).copy() for layer, counts in self._counts.items()}
        for other in self._lent:
            for layer, counts in other.counts.items():
                total[layer] = total[layer] + counts if layer in total else counts
        return total

    def reset(self) -> None:
        self._counts.clear()
        for other in self._lent:
            other.clear()

    def lend(self, other: ExpertLoad, owner: object) -> None:
        """What `other` counts counts here too, as long as its owner lives and after that."""
        self._lent.append(other)
        finalize(owner, self._absorb, other).atexit = False

    def _absorb(self, other: ExpertLoad) -> None:
        self._lent.remove(other)
        for layer, counts in other._counts.items():
            self._counts[layer] = self._counts[layer] + counts if layer in self._counts else counts

    def clear(self) -> None:
        """Zeros, where the counts are."""
        for counts in self._counts.values():
            counts[...] = 0
