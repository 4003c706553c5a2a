"""Print the codebooks of the IQ types as ref_engine/quant/codebooks.py holds them, read out of ggml.

    python golden/make/codebooks.py

A codebook is a set of points of a lattice: every coordinate is one of a few levels. ggml lists the points in ascending
order, the last coordinate counting most, so which points are chosen says all: one bit per point of the lattice. The
points are read by dequantising blocks of scale one that walk through all indices (to_float of ggml's base library).
"""

from __future__ import annotations

import base64
import textwrap

import numpy as np
import numpy.typing as npt
from ggml_api import Ggml

ONE = np.frombuffer(np.float16(1).tobytes(), np.uint8)
U8 = npt.NDArray[np.uint8]


# points, coordinates, and what the smallest scale multiplies them by
SHAPES = {
    "IQ2_XXS": (256, 8, 0.125), "IQ2_XS": (512, 8, 0.125), "IQ2_S": (1024, 8, 0.125),
    "IQ3_XXS": (256, 4, 0.25), "IQ3_S": (512, 4, 1.0), "IQ1_S": (2048, 8, 1.0),
}  # fmt: skip


def index_blocks(ggml: Ggml, kind: str) -> U8:
    """Blocks of scale one, without minus signs, that hold every index of the codebook once, in order."""
    n, width, _ = SHAPES[kind]
    index = np.arange(n, dtype=np.uint16).reshape(-1, 256 // width)  # a row fills a block
    blocks = np.zeros((len(index), ggml.row_bytes(kind, 256)), np.uint8)
    low, high = (index & 255).astype(np.uint8), (index >> 8).astype(np.uint8)
    blocks[:, :2] = ONE
    if kind == "IQ2_XXS":
        for group in range(8):
            blocks[:, 2 + 8 * group : 6 + 8 * group] = low[:, 4 * group : 4 * group + 4]
    elif kind == "IQ2_XS":
        blocks[:, 2:66] = index.astype("<u2").view(np.uint8)
    elif kind == "IQ3_XXS":
        blocks[:, 2:66] = low
    elif kind == "IQ2_S":
        blocks[:, 2:34] = low
        blocks[:, 66:74] = (high.reshape(-1, 8, 4) << np.array([0, 2, 4, 6], np.uint8)).sum(-1)
    elif kind == "IQ3_S":
        blocks[:, 2:66] = low
        blocks[:, 66:74] = np.packbits(high, axis=-1, bitorder="little")
    elif kind == "IQ1_S":
        blocks[:, 2:34] = low
        words = (high.astype(np.uint16).reshape(-1, 8, 4) << np.array([0, 3, 6, 9], np.uint16)).sum(-1)
        blocks[:, 34:50] = words.astype("<u2").view(np.uint8)
    return blocks


def points(ggml: Ggml, kind: str) -> npt.NDArray[np.float32]:
    """All points of a type's codebook in the order of their indices: (n, coordinates)."""
    n, width, unit = SHAPES[kind]
    values = ggml.dequantize(kind, index_blocks(ggml, kind)).reshape(n, width)
    shift = np.float32(0.125 if kind == "IQ1_S" else 0)
    return (values - shift) / np.float32(unit)


def encoded(book: npt.NDArray[np.float32]) -> tuple[list[int], str]:
    """Levels, and base 85 of the bits. Raises ValueError if the points are not in ascending order."""
    levels = np.unique(book)
    width = book.shape[1]
    rank = (np.searchsorted(levels, book) * len(levels) ** np.arange(width)).sum(-1)
    if (np.diff(rank) <= 0).any():
        raise ValueError("the points of a codebook are not in ascending order")
    chosen = np.zeros(len(levels) ** width, bool)
    chosen[rank] = True
    packed = np.packbits(chosen, bitorder="little").tobytes()
    return [int(level) for level in levels], base64.b85encode(packed, pad=True).decode()


def main() -> None:
    ggml = Ggml()
    for kind in ("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"):
        book = points(ggml, kind)
        levels, text = encoded(book)
        print(f"# {kind}: {len(book)} points, levels {levels}")
        for line in textwrap.wrap(text, 104, break_on_hyphens=False):
            print(f'    "{line}"')


if __name__ == "__main__":
    main()
