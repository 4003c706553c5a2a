"""Where a backend's arrays live: in the machine's memory, or in that of a device.

The wiring and the reference functions are NumPy's, and NumPy hands a call over to the library whose arrays it is
given. What is made from nothing says whose it is to be by `like=`. So the same lines run in both places:

    np.zeros(shape, np.float32, like=x)    zeros where x is
    np.asarray(mask, like=x)               a mask made on the host, where x is; NumPy's own as they are
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

ArrayT = TypeVar("ArrayT", bound=NDArray[Any])


def _itself(x: NDArray[Any]) -> NDArray[Any]:
    return x


@dataclass(frozen=True, eq=False)
class Place:
    """put: a NumPy array to an array here. keeps: whether a tensor of this name is used here, and not on the host.

    budget: bytes of unpacked weights that may be kept here; None: as many as on the host.
    """

    name: str
    put: Callable[[NDArray[Any]], NDArray[Any]] = _itself
    keeps: Callable[[str], bool] = lambda name: True
    budget: int | None = None

    def zeros(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        return self.put(np.zeros(shape, dtype))


HOST = Place("host")


def to_host(x: ArrayT) -> ArrayT:
    """An array of any place as NumPy's: itself if it is one already."""
    return x if isinstance(x, np.ndarray) else x.get()


def moved(value: Any, place: Place) -> Any:
    """Arrays, and those in tuples and mappings, where `place` is; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(moved(part, place) for part in value)
    if isinstance(value, dict):
        return {key: moved(part, place) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return value if place is HOST else place.put(value)
    return value.get() if place is HOST and hasattr(value, "get") else value
