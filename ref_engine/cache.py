"""The memory of a sequence: what each layer keeps of all tokens so far. An explicit value that the caller owns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ContextFull, RefEngineError
from ref_engine.place import HOST, Place
from ref_engine.quant.rows import CacheType, as_rows, row_bytes, row_shape, row_type
from ref_engine.reference.linear import Activations
from ref_engine.reference.sums import F32
from ref_engine.spec import ModelSpec

_TYPES: dict[Activations, CacheType] = {"f32": "f32", "q8": "f16"}
_FIRST_ROWS = 256
_SNAPSHOT_EVERY = 64  # tokens, when they come one at a time
_SNAPSHOTS = 12
Slot = tuple[int, str]  # (layer, name of the memory)


class Cache:
    """The tokens of one sequence and what the layers remember of them: rows by position, and recurrent states.

    Room for rows is taken as it is needed, up to n_ctx tokens. `n_past` counts the tokens of the sequence, `n_done`
    those that the memory covers: after `truncate` a recurrent model may have to run some tokens again, because a state
    cannot be taken back. `backlog` are those tokens; the model puts them before the next ones. A forward pass that
    fails half-way leaves the cache where it was.

    type:   of the keys and values; the other rows are float32 in an "f32" cache, else float16
    places: where each layer has its arrays, and so its memory; None: the host

    Raises RefEngineError for rows that the type cannot hold.
    """

    def __init__(self, spec: ModelSpec, n_ctx: int, type: CacheType, places: Sequence[Place] | None = None) -> None:
        if n_ctx < 1:
            raise ValueError(f"a cache holds at least one token, not {n_ctx}")
        self.n_ctx = n_ctx
        self.type = type = kept_type(spec.causal, type)
        self.n_done = 0
        self.tokens: list[int] = []
        self._causal = spec.causal
        self._items = {slot: _items(slot, shape, type) for slot, shape in _all_rows(spec).items()}
        self._shapes = {(i, n): s for i, layer in enumerate(spec.layers) for n, s in layer.memory().states.items()}
        self._places = places or [HOST] * len(spec.layers)
        self._rows: dict[Slot, NDArray[Any]] = {}
        for (layer, name), (shape, dtype) in self._items.items():
            self._rows[layer, name] = self._places[layer].put(np.empty((0, *shape), dtype))
        self._states: Mapping[Slot, F32] = {}  # a missing one is all zero
        self._new: dict[Slot, F32] = {}  # states after the pass that is running
        self._snapshots: list[tuple[int, Mapping[Slot, F32]]] = []

    @property
    def n_past(self) -> int:
        return len(self.tokens)

    @property
    def backlog(self) -> list[int]:
        return self.tokens[self.n_done :]

    def room_for(self, n: int) -> None:
        """Raises ContextFull unless n more tokens fit."""
        if self.n_past + n > self.n_ctx:
            raise ContextFull(f"{self.n_past} tokens and {n} more do not fit a context of {self.n_ctx}")

    def has_room(self, n: int) -> bool:
        """Whether the rows of n more tokens fit where the others are."""
        return all(self.n_done + n <= rows.shape[0] for rows in self._rows.values())

    def append(self, layer: int, name: str, new: F32) -> NDArray[Any]:
        """Put the rows of T new tokens (T, ...) after the old ones.

        Returns those of all tokens so far, (n_done + T, ...), as the cache holds them. `advance` counts them in.
        """
        rows = self.with_room(layer, name, new.shape[0])
        rows[self.n_done :] = as_rows(new, rows.dtype)
        return rows

    def with_room(self, layer: int, name: str, n: int) -> NDArray[Any]:
        """The rows of all tokens so far and n more, (n_done + n, ...), which the caller writes."""
        slot, end = (layer, name), self.n_done + n
        rows = self._rows[slot]
        if end > rows.shape[0]:
            size = min(self.n_ctx, max(end, 2 * rows.shape[0], _FIRST_ROWS))
            with self._places[layer].holding(f"the cache's {size} tokens of {name} in layer {layer} do"):
                grown = self._empty(slot, size)
            grown[: self.n_done] = rows[: self.n_done]
            self._rows = {**self._rows, slot: grown}
            rows = grown
        return rows[:end]

    def _empty(self, slot: Slot, size: int) -> NDArray[Any]:
        shape, dtype = self._items[slot]
        return np.empty((size, *shape), dtype, like=self._rows[slot])

    def all_rows(self) -> Mapping[Slot, NDArray[Any]]:
        """The rows that there is room for now, written or not. Another mapping when some of them move."""
        return self._rows

    def rows_for(self, n: int) -> Mapping[Slot, NDArray[Any]]:
        """The same, with room for n more tokens."""
        if not self.has_room(n):
            for layer, name in self._rows:
                self.with_room(layer, name, n)
        return self._rows

    def state(self, layer: int, name: str) -> F32:
        """A recurrent state after the n_done tokens; not to be written into."""
        slot = (layer, name)
        if slot in self._states:
            return self._states[slot]
        return self._places[layer].put(np.zeros(self._shapes[slot], np.float32))

    def set_state(self, layer: int, name: str, value: F32) -> None:
        """The state after this pass's tokens, a fresh array. `advance` makes it the one that counts."""
        slot = (layer, name)
        if value.shape != self._shapes[slot]:
            raise ValueError(f"state {name} of layer {layer}: shape {value.shape}, expected {self._shapes[slot]}")
        self._new[slot] = value

    def advance(self, ids: Sequence[int]) -> None:
        """The pass over these tokens is complete: count them in."""
        end = self.n_done + len(ids)
        self.tokens += [int(i) for i in ids[self.n_past - self.n_done :]] if end > self.n_past else []
        if not self._causal:
            return  # the next token changes what all of these see
        self.n_done = end
        if self._shapes:
            self._states = {**self._states, **self._new}
            self._new = {}
            last = self._snapshots[-1][0] if self._snapshots else 0
            if len(ids) > 1 or end - last >= _SNAPSHOT_EVERY:
                self._keep_snapshot()

    def _keep_snapshot(self) -> None:
        """States are never written into, so keeping them is keeping references. Old ones are thinned out."""
        self._snapshots.append((self.n_done, self._states))
        if len(self._snapshots) > _SNAPSHOTS:
            del self._snapshots[0 : _SNAPSHOTS // 2 : 2]

    def truncate(self, n_past: int) -> None:
        """Forget all but the first n_past tokens."""
        if not 0 <= n_past <= self.n_past:
            raise ValueError(f"cannot truncate {self.n_past} tokens to {n_past}")
        del self.tokens[n_past:]
        if n_past >= self.n_done:
            return
        if self._shapes:
            self._snapshots = [s for s in self._snapshots if s[0] <= n_past]
            n_past, self._states = self._snapshots[-1] if self._snapshots else (0, {})
        self.n_done = n_past

    def take(self, other: Cache, n_past: int) -> None:
        """Become the first n_past tokens of another cache of the same model, whatever was here. That one stays."""
        if not 0 <= n_past <= min(other.n_past, self.n_ctx):
            raise ValueError(f"cannot take {n_past} of {other.n_past} tokens into a context of {self.n_ctx}")
        self._snapshots = [s for s in other._snapshots if s[0] <= n_past]
        if n_past >= other.n_done:
            done, states = other.n_done, other._states
        elif self._shapes:
            done, states = self._snapshots[-1] if self._snapshots else (0, {})
        else:
            done, states = n_past, {}
        for slot, rows in other._rows.items():
            if self._rows[slot].shape[0] < done:
                size = min(self.n_ctx, rows.shape[0])
                self._rows = {**self._rows, slot: self._empty(slot, size)}
            self._rows[slot][:done] = rows[:done]
        self.tokens, self.n_done, self._states = other.tokens[:n_past], done, states

    @property
    def nbytes(self) -> int:
        kept = {id(s): s.nbytes for _, states in [*self._snapshots, (0, self._states)] for s in states.values()}
        return sum(rows.nbytes for rows in self._rows.values()) + sum(kept.values())


def default_cache_type(activations: Activations) -> CacheType:
    """Of keys and values, where nobody says: as exact as what is computed with them."""
    return _TYPES[activations]


def cache_bytes(spec: ModelSpec, n_ctx: int, type: CacheType) -> int:
    """Bytes of the rows of a full cache and of one set of recurrent states."""
    type = kept_type(spec.causal, type)
    row = sum(row_bytes(shape, type, name) for (_, name), shape in _all_rows(spec).items())
    state = sum(math.prod(s) for layer in spec.layers for s in layer.memory().states.values())
    return n_ctx * row + 4 * state


def kept_type(causal: bool, type: CacheType) -> CacheType:
    """Blocks are for what later passes read; a model whose tokens see later ones keeps nothing, and loses nothing."""
    return type if causal or type != "q8_0" else "f16"


def _all_rows(spec: ModelSpec) -> dict[Slot, tuple[int, ...]]:
    return {(i, name): shape for i, layer in enumerate(spec.layers) for name, shape in layer.memory().rows.items()}


def _items(slot: Slot, shape: tuple[int, ...], type: CacheType) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a row's items."""
    layer, name = slot
    dtype = row_type(type, name)
    try:
        return row_shape(shape, dtype), dtype
    except ValueError as error:
        raise RefEngineError(f"a {type} cache cannot hold {name!r} of layer {layer}: {error}") from None
