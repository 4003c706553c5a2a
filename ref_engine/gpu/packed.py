"""Weights in the memory of the device: packed as in the file, but the parts of their blocks apart.

A block of 18 or 210 bytes starts at no address that a wide load could take. So the quants of all blocks lie together,
one after the other, and so do the scales: each such stream is aligned by itself, and a warp that walks along a row
reads whole lines of memory. Not a byte more is taken than the file has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.files.pages import release
from ref_engine.files.types import GGMLType
from ref_engine.gpu.module import NOTHING
from ref_engine.quant.types import BLOCK_TYPES
from ref_engine.weights import Weight

Streams = tuple[Any, ...]  # four of them, uint8 arrays or NOTHING
_PIECE = 1 << 26  # bytes that are copied to the device at once
_STREAMS: dict[GGMLType, tuple[tuple[str, ...], ...]] = {  # fields of the block, in the order that units*.cuh expects
    GGMLType.Q4_0: (("qs",), ("d",)),
    GGMLType.Q4_1: (("qs",), ("d", "m")),
    GGMLType.Q5_0: (("qs",), ("qh",), ("d",)),
    GGMLType.Q5_1: (("qs",), ("qh",), ("d", "m")),
    GGMLType.Q8_0: (("qs",), ("d",)),
    GGMLType.IQ4_NL: (("qs",), ("d",)),
    GGMLType.MXFP4: (("qs",), ("e",)),
    GGMLType.Q2_K: (("qs",), ("scales",), ("d", "dmin")),
    GGMLType.Q3_K: (("qs",), ("hmask",), ("scales",), ("d",)),
    GGMLType.Q4_K: (("qs",), ("d", "dmin", "scales")),
    GGMLType.Q5_K: (("qs",), ("d", "dmin", "scales"), ("qh",)),
    GGMLType.Q6_K: (("ql",), ("qh",), ("scales",), ("d",)),
    GGMLType.IQ4_XS: (("qs",), ("d", "scales_h", "scales_l")),
}
PLAIN = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)
BLOCKS = tuple(_STREAMS)


def has_kernel(weight: Weight) -> bool:
    """Whether a kernel multiplies by this weight. Experts that a budget bounds are not kept, so not repacked."""
    return weight.type in (*PLAIN, *BLOCKS) and weight.expert_cache is None and not weight.bounded


@dataclass(frozen=True, eq=False)
class Packed:
    """rows, columns: of the matrix, or of each matrix of a stack, which lie one after the other."""

    type: GGMLType
    rows: int
    columns: int
    streams: Streams


def packed(weight: Weight) -> Packed:
    """A weight on its device, uploaded piece by piece when it is asked for first; experts are parts of their stack."""
    found: Packed | None = weight.kept.get("packed")
    if found is None:
        with weight.place.holding(f"tensor {weight.name} does"):
            streams = _plain(weight) if weight.type in PLAIN else _apart(weight)
        found = Packed(weight.type, weight.shape[-2], weight.shape[-1], streams)
        weight.kept["packed"] = found
        weight.kept.pop("bytes", None)
        if len(weight.shape) == 3:
            for e in range(weight.shape[0]):
                weight.expert(e).kept["packed"] = _part(found, e, weight.shape[0])
    return found


def _part(stack: Packed, e: int, n: int) -> Packed:
    """Matrix e of a stack of n: views of its streams."""

    def cut(stream: Any) -> Any:
        return NOTHING if stream is NOTHING else stream.reshape(n, -1)[e]

    return Packed(stack.type, stack.rows, stack.columns, tuple(map(cut, stack.streams)))


def rows(table: Packed, ids: Any) -> Packed:
    """Copies of chosen rows: ids (n,) on the device, each below table.rows."""
    streams = (s if s is NOTHING else s.reshape(table.rows, -1)[ids] for s in table.streams)
    return Packed(table.type, ids.size, table.columns, tuple(streams))


def _plain(weight: Weight) -> Streams:
    if weight.type is GGMLType.F32:
        values: Any = weight.f32()
        return (values.reshape(-1).view(np.uint8),)
    return (weight.bytes_here().reshape(-1),)


def _spans(type: GGMLType) -> Iterator[tuple[int, int]]:
    """Where each stream's bytes are in a block."""
    fields: Any = BLOCK_TYPES[type].layout.fields
    for names in _STREAMS[type]:
        last, first = fields[names[-1]], fields[names[0]][1]
        yield first, last[1] + last[0].itemsize


def _apart(weight: Weight) -> Streams:
    """(n, bytes of a block) -> a (n, bytes) stream for each part, piece by piece."""
    size = BLOCK_TYPES[weight.type].layout.itemsize
    blocks: NDArray[np.uint8] = weight.data.reshape(-1, size)
    spans, at_once = list(_spans(weight.type)), max(1, _PIECE // size)
    streams: list[Any] = []
    for first in range(0, len(blocks), at_once):
        piece = weight.place.put(blocks[first : first + at_once])
        if not streams:
            streams = [np.empty((len(blocks), end - start), np.uint8, like=piece) for start, end in spans]
        for stream, (start, end) in zip(streams, spans, strict=True):
            stream[first : first + len(piece)] = piece[:, start:end]
    release(weight.data)
    return (*streams, *[NOTHING] * (4 - len(streams)))
