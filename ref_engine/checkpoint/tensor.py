"""A tensor that is not read yet, and what can be done to it before it is.

Its values come as slices along the first axis, in order, so that neither a large matrix nor a stack of experts has to
be in memory at once. What needs the whole tensor (a transposition, say) reads it whole when its turn comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ConvertError
from ref_engine.files.types import GGMLType

Array = NDArray[Any]
Parts = Callable[[], Iterator[Array]]


@dataclass(frozen=True)
class Tensor:
    """Values in NumPy order (slowest axis first).

    name:   in the checkpoint, for messages
    dtype:  as the checkpoint says it: F32, BF16, F8_E4M3, ...
    parts:  gives slices along the first axis: float16 for F16, float32 for every other number, or, where the tensor is
            packed, uint8 rows of that type's blocks
    packed: the GGML type whose blocks the parts hold already
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: Parts
    packed: GGMLType | None = None

    def whole(self) -> Array:
        return np.concatenate(list(self.parts())) if self.shape else next(self.parts())

    def mapped(self, function: Callable[[Array], Array]) -> Tensor:
        """Apply a function to each value."""
        return replace(self, parts=lambda: (function(part) for part in self.parts()))

    def remade(self, shape: Sequence[int], function: Callable[[Array], Array]) -> Tensor:
        """Apply a function of the whole tensor that gives one of this shape."""

        def parts() -> Iterator[Array]:
            made = function(self.whole())
            if made.shape != tuple(shape):
                raise ConvertError(f"tensor {self.name} became {list(made.shape)} instead of {list(shape)}")
            yield made

        return replace(self, shape=tuple(shape), parts=parts)

    def reshaped(self, *shape: int) -> Tensor:
        if math.prod(shape) != math.prod(self.shape):
            raise ConvertError(f"tensor {self.name} of {list(self.shape)} cannot become {list(shape)}")
        return self.remade(shape, lambda x: x.reshape(shape))

    def squeezed(self) -> Tensor:
        return self.reshaped(*(n for n in self.shape if n != 1))

    def transposed(self) -> Tensor:
        """The last two axes exchanged."""
        self.expect_axes(2, 3)
        return self.remade((*self.shape[:-2], *self.shape[:-3:-1]), lambda x: x.swapaxes(-1, -2))

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the first axis."""
        if not self.shape or not 0 <= start <= stop <= self.shape[0]:
            raise ConvertError(f"tensor {self.name} of {list(self.shape)} has no rows {start} to {stop}")

        def parts() -> Iterator[Array]:
            at = 0
            for part in self.parts():
                yield part[max(start - at, 0) : max(stop - at, 0)]
                at += len(part)

        return replace(self, shape=(stop - start, *self.shape[1:]), parts=parts)

    def split(self, *lengths: int) -> list[Tensor]:
        """Cut along the first axis."""
        if not self.shape or sum(lengths) != self.shape[0]:
            raise ConvertError(f"tensor {self.name} of {list(self.shape)} cannot be cut into rows of {list(lengths)}")
        ends = np.cumsum(lengths)
        return [self.rows(int(end) - length, int(end)) for end, length in zip(ends, lengths, strict=True)]

    def expect_axes(self, *allowed: int) -> None:
        if len(self.shape) not in allowed:
            raise ConvertError(f"tensor {self.name} has {len(self.shape)} axes, not {' or '.join(map(str, allowed))}")


def given(name: str, values: Array) -> Tensor:
    """A tensor that the configuration gives, not the checkpoint."""
    array = np.asarray(values, np.float32)
    return Tensor(name, array.shape, "F32", lambda: iter([array]))


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape along a new first axis."""
    first = tensors[0]
    for tensor in tensors:
        if tensor.shape != first.shape:
            raise ConvertError(f"tensor {tensor.name} is {list(tensor.shape)}, but {first.name} is {list(first.shape)}")
    return replace(
        first,
        shape=(len(tensors), *first.shape),
        parts=lambda: (tensor.whole()[None] for tensor in tensors),
    )


def concatenated(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one after the other along the first axis."""
    first = tensors[0]
    for tensor in tensors:
        if not tensor.shape or tensor.shape[1:] != first.shape[1:]:
            raise ConvertError(f"tensors {first.name} and {tensor.name} do not fit one after the other")
    return replace(
        first,
        shape=(sum(t.shape[0] for t in tensors), *first.shape[1:]),
        parts=lambda: (part for tensor in tensors for part in tensor.parts()),
    )
