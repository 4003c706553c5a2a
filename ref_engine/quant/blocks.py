"""What a quantised block type says about itself, and the integer view that q8 dot products are made of.

A block of B weights is stored as small integers and one or two scales. Two questions are asked of it:

* `dequantize`: which float32 numbers are these?
* `integers`:   which integers go into the dot product with 8-bit activations, and which scales follow?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Blocks = NDArray[Any]  # structured array, one record a block


@dataclass(frozen=True)
class IntegerBlocks:
    """Blocks as integers with float32 scales: block value = d * q - offset.

    q:     (..., B)  integers small enough that a dot with int8 activations is exact in `q.dtype` as computed by
                     any order of additions: float32 for blocks of 32, float64 for blocks of 256.
                     Types whose block does not fit the activation's are cut into blocks of 32 (NVFP4, Q1_0, Q2_0).
    d:     (...)     float32 scale of the block
    m:     (...)     float32 minimum, added once per block times the activation block's sum `s` (Q4_1, Q5_1), or None
    mins:  (..., G)  integer minima of the G sub-blocks (Q2_K, Q4_K, Q5_K), or None
    dmin:  (...)     float32 scale of `mins`, or None
    """

    q: NDArray[Any]
    d: F32
    m: F32 | None = None
    mins: NDArray[Any] | None = None
    dmin: F32 | None = None


class BlockType(Protocol):
    """One quantisation type. `layout` is the block's byte diagram as a NumPy record."""

    layout: np.dtype[Any]
    size: int  # weights in a block
    activation: str  # rounding of the other operand in q8 mode: "q8_0", "q8_1" or "q8_k"

    @staticmethod
    def dequantize(b: Blocks) -> F32:
        """(...) records -> (..., size) float32, bit for bit what ggml's to_float gives."""
        ...

    @staticmethod
    def integers(b: Blocks) -> IntegerBlocks:
        """(...) records -> the integer view of the same blocks."""
        ...


def exact_values(view: IntegerBlocks) -> F32:
    """d * q as float32: the values of a type whose integers and scales are both short enough for an exact product.

    q must carry the sign of its zeros where a factor of it is zero and another negative, as a float product does.
    """
    return view.d[..., None] * view.q.astype(np.float32)


def f32(scale: NDArray[np.float16]) -> F32:
    """float16 scale to float32; exact, infinities and NaNs included."""
    return scale.astype(np.float32)


def nibbles(qs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., n) bytes -> (..., 2n): all low nibbles, then all high nibbles (the order of the 32-weight types)."""
    return np.concatenate([qs & 0x0F, qs >> 4], axis=-1)


def bits(qh: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., n) bytes -> (..., 8 n) single bits, least significant first."""
    return np.unpackbits(qh, axis=-1, bitorder="little")


def fields(data: Any, layout: np.dtype[Any]) -> dict[str, Any]:
    """Bytes of whole blocks on a device, whose library has no records: (..., n_bytes) -> the fields by name, as records
    have them."""
    blocks = data.reshape(*data.shape[:-1], -1, layout.itemsize)
    found: dict[str, Any] = {}
    for name, (type, offset, *_) in (layout.fields or {}).items():
        part = blocks[..., offset : offset + type.itemsize]
        if type.base.itemsize > 1:
            part = np.ascontiguousarray(part, like=data)  # where it stands it need not be aligned
        part = part.view(type.base)
        found[name] = part if type.shape else part[..., 0]
    return found
