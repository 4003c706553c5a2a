"""What every part of a layer can say about itself: its tensors and its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Presence = Literal["no", "may", "must"]  # whether a file lacks, may have or must have a tensor


@dataclass(frozen=True)
class TensorRule:
    """What a tensor must look like: shape with the slowest axis first, and whether the file may lack it.

    reshaped: the file may divide the same numbers into other axes.
    """

    shape: tuple[int, ...]
    required: bool = True
    indices: bool = False  # whole numbers (I32) that no product takes
    reshaped: bool = False


Rules = dict[str, TensorRule]


@dataclass(frozen=True)
class Memory:
    """What a part keeps between passes, by name.

    rows:   one row for each token so far, of this shape (keys, values); kept in the cache's type
    states: one array of this shape, float32, all zero before the first token (recurrent layers)
    """

    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    states: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


NOTHING = Memory()


class Part(Protocol):
    """A half of a layer: something that mixes tokens, or a feed-forward network."""

    def rules(self, d_model: int) -> Rules:
        """Its tensors by their names without the `blk.N.` prefix."""
        ...

    def memory(self) -> Memory: ...


def tensor(name: str, shape: tuple[int, ...], presence: Presence = "must") -> Rules:
    """The rule of one tensor; none for "no"."""
    return {} if presence == "no" else {name: TensorRule(shape, required=presence == "must")}


def linear(name: str, n_out: int, n_in: int, bias: Presence = "may") -> Rules:
    """The rules of a linear map: `name.weight` (n_out, n_in), and `name.bias` (n_out,)."""
    return tensor(f"{name}.weight", (n_out, n_in)) | tensor(f"{name}.bias", (n_out,), bias)
