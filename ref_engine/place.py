"""Where a backend's arrays live: in the machine's memory, or in that of a device.

The wiring and the reference functions are NumPy's, and NumPy hands a call over to the library whose arrays it is
given. What is made from nothing says whose it is to be by `like=`. So the same lines run in both places:

    np.zeros(shape, np.float32, like=x)    zeros where x is
    np.asarray(mask, like=x)               a mask made on the host, where x is; NumPy's own as they are

(Not so `np.ones` and `np.full`: with `like` they pass a `device` along, which CuPy's do not take.)
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError

ArrayT = TypeVar("ArrayT", bound=NDArray[Any])
Where = Literal["cpu", "gpu"]
_EXPERTS = re.compile(r"_(ch)?exps\b")
_BLOCK = re.compile(r"blk\.([0-9]{1,9})\.")


class Place:
    """The host. Others put arrays elsewhere.

    budget: bytes of unpacked weights that may be kept here beside what the host keeps.
    """

    name = "host"
    budget = 0

    def put(self, x: NDArray[Any]) -> NDArray[Any]:
        """A NumPy array, here."""
        return x

    def keeps(self, name: str) -> bool:
        """Whether the tensor of this name is used here, and not on the host."""
        return True

    def holding(self, what: str) -> AbstractContextManager[object]:
        """Entered while room is taken. An error for lack of it begins with `what`, such as "tensor x does"."""
        return nullcontext()

    def finish(self) -> None:
        """Waits until what was asked for is computed, for whoever measures time."""

    def has_room(self, packed: int, unpacked: int) -> None:
        """Whether so many bytes of weights fit, packed; if so unpacked, too, they are kept. Raises RefEngineError."""


HOST = Place()


def to_host(x: ArrayT) -> ArrayT:
    """An array of any place as NumPy's: itself if it is one already."""
    return x if isinstance(x, np.ndarray) else x.get()


def joined(*parts: ArrayT) -> ArrayT:
    """Arrays side by side, one behind the other along the last axis; only that one's size may differ.

    In the place of np.concatenate where a pass may be recorded: CuPy's copies the arrays' addresses from the host.
    """
    width = sum(part.shape[-1] for part in parts)
    y, at = np.empty((*parts[0].shape[:-1], width), parts[0].dtype, like=parts[0]), 0
    for part in parts:
        y[..., at : at + part.shape[-1]] = part
        at += part.shape[-1]
    return y  # type: ignore[return-value]


def moved(value: Any, place: Place) -> Any:
    """Arrays, and those in tuples and mappings, where `place` is; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(moved(part, place) for part in value)
    if isinstance(value, dict):
        return {key: moved(part, place) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return value if place is HOST else place.put(value)
    return value.get() if place is HOST and hasattr(value, "__cuda_array_interface__") else value


@dataclass(frozen=True)
class Placement:
    """Which part of a model a device has: the layers whose tensors are `blk.N.` with N >= first, and the output.

    experts: the experts' matrices of those layers, too.
    """

    first: int
    experts: bool = True

    @classmethod
    def of(cls, n_layer: int, gpu_layers: int | None, experts_on: Where) -> Placement:
        """As llama.cpp counts: the output is one more layer and the first to go, then the layers from the last one on.

        None: all. With 1 the device has the output alone, with n_layer + 1 the whole model.
        """
        first = 0 if gpu_layers is None else max(0, n_layer + 1 - gpu_layers)
        return cls(first, experts_on == "gpu")

    def on_device(self, name: str) -> bool:
        """Whether the device has a tensor. Embeddings are looked up on the host, row by row."""
        number = _BLOCK.match(name)
        if number is None:
            return name.startswith("output")
        return int(number[1]) >= self.first and (self.experts or not is_expert(name))


def is_expert(name: str) -> bool:
    """Whether a tensor belongs to the experts that a router chooses from."""
    return _EXPERTS.search(name) is not None


def check_split(backend: str, gpu_layers: int | None, experts_on: str | None) -> None:
    """Raises RefEngineError for what cannot be asked of this backend."""
    if backend != "cupy" and (gpu_layers is not None or experts_on is not None):
        given = "gpu_layers" if gpu_layers is not None else "experts_on"
        raise RefEngineError(f"{given} is for the backend cupy, this is {backend}")
    if gpu_layers is not None and gpu_layers < 0:
        raise RefEngineError(f"gpu_layers is {gpu_layers}, expected at least 0")
    if experts_on not in (None, "cpu", "gpu"):
        raise RefEngineError(f"unknown experts_on {experts_on!r}: cpu or gpu")
