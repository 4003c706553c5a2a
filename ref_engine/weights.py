"""A weight is bytes, a type and a shape. It stays packed; what is unpacked is kept only within a budget."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ModelError
from ref_engine.files.gguf import GGUFFile
from ref_engine.files.pages import release
from ref_engine.files.types import GGMLType
from ref_engine.place import HOST, Place
from ref_engine.quant.blocks import F32, IntegerBlocks
from ref_engine.quant.types import BLOCK_TYPES, PLAIN_TYPES, dequantize, integers, supported


class UnpackCache:
    """Least recently used unpacked weights, at most `budget` bytes of them.

    The readable engine would otherwise unpack each weight anew for each token. Not for use by several threads at once:
    one engine thread makes all calls.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.held = 0
        self.hits = self.misses = self.bytes_read = 0  # bytes_read: of packed weights, to make what was missing
        self._entries: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()

    def get(self, key: tuple[str, str], make: Callable[[], tuple[Any, int]], source: int = 0) -> Any:
        """The value under `key`, made by `make() -> (value, bytes)` from `source` bytes if it is not held."""
        if key in self._entries:
            self.hits += 1
            self._entries.move_to_end(key)
            return self._entries[key][0]
        self.misses += 1
        self.bytes_read += source
        value, nbytes = make()
        if nbytes <= self.budget:
            self._entries[key] = (value, nbytes)
            self.held += nbytes
            while self.held > self.budget:
                _, (_, dropped) = self._entries.popitem(last=False)
                self.held -= dropped
        return value


@dataclass(frozen=True, eq=False)
class Weight:
    """One tensor of a model file.

    shape: slowest axis first, so a matrix is (rows = outputs, columns = inputs) and row-major, as `y = W @ x` reads.
    data:  uint8 (n_bytes,), usually a read-only view of the mapped file.
    """

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    cache: UnpackCache = field(repr=False, default_factory=lambda: UnpackCache(0))
    kept: dict[str, Any] = field(repr=False, default_factory=dict)  # what a backend has made of it, for good
    expert_cache: UnpackCache | None = field(repr=False, default=None)  # bounds what is made of experts
    bounded: bool = False  # an expert whose unpacked or repacked form lives in `cache` only
    place: Place = field(repr=False, default=HOST)  # where what is made of it is used; `data` is on the host

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)

    @property
    def is_plain(self) -> bool:
        """One number per weight (F32, F16, BF16), no blocks."""
        return self.type in PLAIN_TYPES

    @property
    def activation(self) -> str:
        """How ggml rounds the other operand of a product with this type: f32, f16, bf16, q8_0, q8_1 or q8_k."""
        return self.type.name.lower() if self.is_plain else BLOCK_TYPES[self.type].activation

    def _rows_of_bytes(self) -> NDArray[np.uint8]:
        """(rows, bytes of a row), all leading axes joined."""
        rows = int(np.prod(self.shape[:-1], dtype=np.int64))
        return self.data.reshape(rows, -1)

    def bytes_here(self) -> NDArray[np.uint8]:
        """The packed bytes where they are used, (rows, bytes of a row); another place than the host keeps a copy."""
        if self.place is HOST:
            return self._rows_of_bytes()
        if "bytes" in self.kept:
            kept: NDArray[np.uint8] = self.kept["bytes"]
            return kept
        with self.place.holding(f"tensor {self.name} does"):
            there = self.place.put(self._rows_of_bytes())
        release(self.data)
        one_copy = self.type is GGMLType.F32 or "packed" in self.kept  # the numbers, or the parts for kernels
        if not self.bounded and not one_copy:
            self.kept["bytes"] = there
        return there

    def f32(self) -> F32:
        """The whole weight as float32, shaped `shape`, where it is used."""

        def make() -> tuple[F32, int]:
            with self.place.holding(f"tensor {self.name} does"):
                values = dequantize(self.bytes_here(), self.type).reshape(self.shape)
            return values, int(values.nbytes)

        if self.type is GGMLType.F32:  # already what is asked for: a view
            if "f32" not in self.kept:
                values = make()[0]
                if values.ndim == 1:  # a copy: 2 MiB of the file may come into memory for the sake of a few numbers
                    values = values.copy()
                    release(self.data)
                self.kept["f32"] = values
            kept: F32 = self.kept["f32"]
            return kept
        unpacked: F32 = self.cache.get((self.name, "f32"), make, self.nbytes)
        return unpacked

    def integers(self) -> IntegerBlocks:
        """The integer view for q8 products, blocks first: q (n_blocks, rows, B), d (n_blocks, rows), and so on."""

        def make() -> tuple[IntegerBlocks, int]:
            v = integers(self._rows_of_bytes(), self.type)

            def first(x: NDArray[Any] | None) -> Any:
                return None if x is None else np.ascontiguousarray(np.swapaxes(x, 0, 1))

            view = IntegerBlocks(first(v.q), first(v.d), first(v.m), first(v.mins), first(v.dmin))
            parts = (view.q, view.d, view.m, view.mins, view.dmin)
            return view, sum(int(x.nbytes) for x in parts if x is not None)

        view: IntegerBlocks = self.cache.get((self.name, "integers"), make, self.nbytes)
        return view

    def expert(self, e: int) -> Weight:
        """One matrix of a stack: (E, rows, columns) -> (rows, columns), a view of its bytes.

        The same object each time, so that what a backend makes of it is made once. Raises ModelError for a weight that
        is no stack or an e outside 0 .. E-1.
        """
        if len(self.shape) != 3 or not 0 <= e < self.shape[0]:
            raise ModelError(f"tensor {self.name} of shape {list(self.shape)} has no expert {e}")
        views: dict[int, Weight] = self.kept.setdefault("experts", {})
        if e not in views:
            data = self.data.reshape(self.shape[0], -1)[e]
            cache = self.expert_cache or self.cache
            bounded = self.expert_cache is not None
            name = f"{self.name}[{e}]"
            views[e] = Weight(name, self.type, self.shape[1:], data, cache, bounded=bounded, place=self.place)
        return views[e]

    def rows(self, ids: NDArray[np.int64]) -> F32:
        """Chosen rows of a matrix as float32, on the host: (n,) -> (n, columns). The caller checks the ids."""
        return dequantize(self._rows_of_bytes()[ids], self.type)


class LayerTensors(dict[str, Weight]):
    """The tensors of one layer by their names without the `blk.N.` prefix, and what every pass asks of them, kept."""

    def __init__(self, prefix: str, tensors: Mapping[str, Weight]) -> None:
        super().__init__(tensors)
        self._prefix = prefix
        self._vectors: dict[str, F32 | None] = {}
        self._maps: dict[str, tuple[Weight, F32 | None, F32 | None]] = {}
        self.kept: dict[Any, Any] = {}  # what a backend has made of the layer

    def __missing__(self, name: str) -> Weight:
        raise ModelError(f"tensor {self._prefix}{name} is missing from the file")

    def vector(self, name: str) -> F32 | None:
        """A small tensor as float32, or None where the file has none."""
        if name not in self._vectors:
            self._vectors[name] = self[name].f32() if name in self else None
        return self._vectors[name]

    def map(self, name: str) -> tuple[Weight, F32 | None, F32 | None]:
        """The weight of a linear map, its bias and its factor, if the file has them."""
        if name not in self._maps:
            self._maps[name] = self[f"{name}.weight"], self.vector(f"{name}.bias"), self.vector(f"{name}.scale")
        return self._maps[name]


class Weights(Mapping[str, Weight]):
    """All tensors of a file by their GGUF names, with one budget for what is unpacked.

    expert_cache: bytes for the unpacked or repacked experts of a model that does not fit memory, least recently used
    ones going first; None: what a backend makes of experts stays, as for other weights.
    """

    def __init__(self, tensors: Mapping[str, Weight], expert_cache: UnpackCache | None = None) -> None:
        self.expert_cache = expert_cache
        self._all = dict(tensors)
        self._layers: dict[str, LayerTensors] = {}
        self._elsewhere: dict[Place, Weights] = {}

    def at(self, place: Place) -> Weights:
        """The same tensors for use in another place; what is made of them there is kept apart, for as long as this."""
        if place is HOST:
            return self
        if place not in self._elsewhere:
            cache = UnpackCache(place.budget)
            self._elsewhere[place] = Weights(
                {
                    name: replace(weight, kept={}, cache=cache, place=place) if place.keeps(name) else weight
                    for name, weight in self._all.items()
                },
                self.expert_cache,
            )
        return self._elsewhere[place]

    @classmethod
    def of_file(cls, file: GGUFFile, unpack_budget: int, expert_cache: int | None = None) -> Weights:
        """All tensors of an open file, their bytes staying where they are mapped."""
        cache = UnpackCache(unpack_budget)
        experts = None if expert_cache is None else UnpackCache(expert_cache)
        return cls(
            {
                name: Weight(name, info.type, info.shape, file.data(name), cache, expert_cache=experts)
                for name, info in file.tensors.items()
            },
            experts,
        )

    def layer(self, blk: int) -> LayerTensors:
        """The tensors of the layer `blk.{blk}.*`."""
        if not self._layers:  # all at once, in one walk over the names
            parts: dict[str, dict[str, Weight]] = {}
            for name, weight in self._all.items():
                if name.startswith("blk."):
                    number, _, rest = name.removeprefix("blk.").partition(".")
                    parts.setdefault(number, {})[rest] = weight
            self._layers = {number: LayerTensors(f"blk.{number}.", part) for number, part in parts.items()}
        if str(blk) not in self._layers:
            self._layers[str(blk)] = LayerTensors(f"blk.{blk}.", {})
        return self._layers[str(blk)]

    def __getitem__(self, name: str) -> Weight:
        if name not in self._all:
            raise ModelError(f"tensor {name} is missing from the file")
        return self._all[name]

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def check(self, name: str, shape: tuple[int, ...], indices: bool = False, reshaped: bool = False) -> None:
        """Raises ModelError, naming the tensor, if it is missing, misshapen or of a type without a definition.

        Files drop slowest axes of length 1, and some have more of them; they are made those of `shape`.
        indices: whole numbers, not weights. reshaped: other axes will do, if they hold the same rows, or numbers.
        """
        weight = self[name]
        same = _without_ones(weight.shape) == _without_ones(shape)
        if reshaped and (weight.is_plain or weight.shape[-1] == shape[-1]):
            same = math.prod(weight.shape) == math.prod(shape)
        if not same:
            raise ModelError(f"tensor {name} has shape {list(weight.shape)}, the metadata ask for {list(shape)}")
        if weight.shape != shape:
            self._all[name] = replace(weight, shape=shape, kept={})
            self._forget()
        if indices and weight.type is not GGMLType.I32:
            raise ModelError(f"tensor {name} has type {weight.type.name}, expected I32")
        if not indices and not supported(weight.type):
            raise ModelError(f"tensor {name} has type {weight.type.name}, which is not supported yet")

    def drop(self, names: Iterable[str]) -> None:
        """Forget tensors that the model does not use."""
        for name in names:
            del self._all[name]
        self._forget()

    def _forget(self) -> None:
        """What was made of the names as they were."""
        self._layers, self._elsewhere = {}, {}


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the slowest axes of length 1."""
    return _without_ones(shape[1:]) if len(shape) > 1 and shape[0] == 1 else shape
