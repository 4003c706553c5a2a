"""The memory of a sequence: keys and values of all tokens so far. An explicit value that the caller owns."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ContextFull
from ref_engine.reference.sums import F32
from ref_engine.spec import ModelSpec

CacheType = Literal["f32", "f16"]
_DTYPES: dict[str, type[np.floating[Any]]] = {"f32": np.float32, "f16": np.float16}
_FIRST_ROWS = 256


class KVCache:
    """Keys and values of one sequence, for every layer (n, K, Hd), row s belonging to position s.

    Room is taken as it is needed, up to n_ctx tokens. `n_past` counts the tokens whose keys are in all layers: a
    forward pass that fails half-way leaves it where it was.
    """

    def __init__(self, spec: ModelSpec, n_ctx: int, type: CacheType) -> None:
        if n_ctx < 1:
            raise ValueError(f"a cache holds at least one token, not {n_ctx}")
        self.n_ctx = n_ctx
        self.n_past = 0
        self._dtype = _DTYPES[type]
        self._widths = [(layer.attention.n_head_kv, layer.attention.head_dim) for layer in spec.layers]
        self._rows: list[NDArray[Any]] = [np.empty((2, 0, *w), self._dtype) for w in self._widths]

    def room_for(self, n: int) -> None:
        """Raises ContextFull unless n more tokens fit."""
        if self.n_past + n > self.n_ctx:
            raise ContextFull(f"{self.n_past} tokens and {n} more do not fit a context of {self.n_ctx}")

    def extend(self, layer: int, k: F32, v: F32) -> tuple[NDArray[Any], NDArray[Any]]:
        """Put the keys and values of T new tokens, each (T, K, Hd), after the n_past old ones.

        Returns those of all n_past + T tokens (S, K, Hd), as the cache holds them. `advance` counts them in.
        """
        end = self.n_past + k.shape[0]
        rows = self._rows[layer]
        if end > rows.shape[1]:
            size = min(self.n_ctx, max(end, 2 * rows.shape[1], _FIRST_ROWS))
            grown = np.empty((2, size, *self._widths[layer]), self._dtype)
            grown[:, : self.n_past] = rows[:, : self.n_past]
            self._rows[layer] = rows = grown
        with np.errstate(over="ignore"):  # beyond 65504 an f16 cache holds infinity, as ggml's does
            rows[0, self.n_past : end], rows[1, self.n_past : end] = k, v
        return rows[0, :end], rows[1, :end]

    def advance(self, n: int) -> None:
        self.n_past += n

    def truncate(self, n_past: int) -> None:
        """Forget all but the first n_past tokens."""
        if not 0 <= n_past <= self.n_past:
            raise ValueError(f"cannot truncate {self.n_past} tokens to {n_past}")
        self.n_past = n_past

    @property
    def nbytes(self) -> int:
        return sum(rows.nbytes for rows in self._rows)


def cache_bytes(spec: ModelSpec, n_ctx: int, type: CacheType) -> int:
    """Bytes of a full cache."""
    width = sum(layer.attention.n_head_kv * layer.attention.head_dim for layer in spec.layers)
    return 2 * n_ctx * width * np.dtype(_DTYPES[type]).itemsize
