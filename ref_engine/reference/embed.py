"""From token ids to vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ref_engine.reference.sums import F32
from ref_engine.weights import Weight


def embed(ids: NDArray[np.int64], weight: Weight) -> F32:
    """Rows of the embedding matrix: ids (T,), weight (V, D) -> (T, D) float32 (ggml_get_rows).

    Raises IndexError for an id outside 0 .. V-1 (negative ids would otherwise count from the end).
    """
    check(ids, weight)
    return weight.rows(ids)


def check(ids: NDArray[np.int64], weight: Weight) -> None:
    """Raises IndexError unless all ids are rows of the weight."""
    if ids.size and (ids.min() < 0 or ids.max() >= weight.shape[0]):
        raise IndexError(f"token id outside 0..{weight.shape[0] - 1}: {ids.min()}..{ids.max()}")
