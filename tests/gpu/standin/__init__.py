"""A module that stands in for `cupy` where there is no GPU: its arrays are NumPy's underneath, its rules are CuPy's.

    cupy = standin.make()
    monkeypatch.setattr(compat, "cupy", cupy)

What it lets through is what api.json says that CuPy has: functions with their parameters, element-wise functions with
their types, methods of arrays. As CuPy does, it refuses to become a NumPy array unasked and to be mixed with one.
A kernel that is compiled from source runs in the emulator of the tests. Nothing is known of speed.
"""

from standin.array import Array
from standin.module import Cupy

__all__ = ["Array", "Cupy", "make"]


def make(memory: int = 1 << 40) -> Cupy:
    """A fresh one, with a device of its own that has so many bytes."""
    return Cupy(memory)
