"""y = W x on the device, by kernels for a few rows of x and by the library's matrix product for many.

Up to MOST rows: each weight is read once, packed as it is. In q8 mode x is rounded to 8 bits on the device as the
other operand's type asks, and products are integer dots (`dp4a`); in f32 mode weights are unpacked in registers.
More rows: a tile of the weight at a time is unpacked and multiplied by cuBLAS, in f32 mode in float32, in q8 mode in
float16, to which tensor cores add in float32. A row of x is divided by a power of two first, so that float16 holds it.
Many rows for the matrices of a stack, each with rows of its own: the kernels' arithmetic in both modes, see `Groups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ref_engine.files.types import GGMLType
from ref_engine.gpu import module
from ref_engine.gpu.groups import Groups, grouped
from ref_engine.gpu.layers import together
from ref_engine.gpu.module import NOTHING
from ref_engine.gpu.packed import BLOCKS, PLAIN, Packed, has_kernel, packed
from ref_engine.gpu.unpacked import linear as unpacked_linear
from ref_engine.quant.types import BLOCK_TYPES, dequantize
from ref_engine.reference.linear import Activations, Map
from ref_engine.reference.linear import by_head as composed
from ref_engine.reference.sums import F32
from ref_engine.weights import Weight

MOST = 8  # rows of x for which kernels are compiled
_AT_ONCE = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 8: 8}  # rows -> those of the kernel
_ROWS, _WARP = 4, 32  # rows of a weight for each block of threads, one warp each
_TILE = 1 << 25  # numbers of a weight that are unpacked at once


@dataclass(frozen=True)
class Input:
    """Rows of x as the kernels take them: the first arguments after the weight's. x: (T, columns)."""

    x: Any
    arguments: tuple[Any, ...]


def aligned(x: Any) -> Any:
    """The same numbers where wide loads can take them: one after the other, from an address that 16 divides."""
    x = np.ascontiguousarray(x, np.float32, like=x)
    return x if x.data.ptr % 16 == 0 else x.copy()


def rounded(x: Any, kind: str) -> Input:
    """x (T, columns) float32 in blocks of q8_0, q8_1 or q8_k: bytes, scales of 32, and sums of 16 or none."""
    block = 256 if kind == "q8_k" else 32
    n = x.size // block
    q = np.empty(x.shape, np.int8, like=x)
    d = np.empty((x.shape[0], x.shape[1] // 32), np.float32, like=x)
    sums: Any = NOTHING if kind == "q8_0" else np.empty((x.shape[0], x.shape[1] // 16), np.float32, like=x)
    kernel = module.get("round", "round_q8_k" if kind == "q8_k" else "round_q8_0")
    kernel((-(-n // _ROWS),), (_ROWS * _WARP,), (x, q, d, sums, np.int64(n)))
    return Input(x, (q, d, sums))


class Products:
    """The products of one mode. What no kernel knows goes another way, see `unpacked`."""

    def __init__(self, activations: Activations) -> None:
        self.activations = activations

    def linear(self, x: F32, weight: Weight, bias: F32 | None = None) -> F32:
        """x (T, columns), weight (rows, columns), bias (rows,) -> (T, rows) float32.

        Raises ValueError when the widths differ.
        """
        return self.linears(x, [(weight, bias)])[0]

    def linears(self, x: F32, maps: Sequence[Map]) -> list[F32]:
        """Several maps of one input, which is rounded once for each kind of rounding that they ask for."""
        few = x.shape[0] <= MOST
        made: dict[str, Input] = {}
        results = []
        for weight, bias in maps:
            if x.shape[-1] != weight.shape[-1]:
                raise ValueError(f"{weight.name}: input of width {x.shape[-1]}, weight of width {weight.shape[-1]}")
            if not has_kernel(weight) or not x.size:
                results.append(unpacked_linear(x, weight, bias))
            elif few:
                w = packed(weight)
                kind = self.kind(w.type)
                if kind not in made:
                    made[kind] = self.input(x, w.type)
                results.append(self.product(made[kind], w, bias))
            else:
                y = self.many(x, packed(weight))
                results.append(y if bias is None else y + bias)
        return results

    def kind(self, type: GGMLType) -> str:
        """How activations are rounded for a weight of this type; float for not at all, or within the kernel."""
        return "float" if self.activations == "f32" or type in PLAIN else BLOCK_TYPES[type].activation

    def input(self, x: Any, type: GGMLType) -> Input:
        kind, x = self.kind(type), aligned(x)
        return Input(x, (x,)) if kind == "float" else rounded(x, kind)

    def product(
        self, x: Input, w: Packed, bias: F32 | None = None, ids: Any = None, n_slots: int = 1, share: int = 1
    ) -> Any:
        """At most MOST rows times the weight: (T, rows). With ids of n_slots matrices of a stack, (n_slots, rows):
        slot s is row s // share of x times matrix ids[s]. ids: (n_slots,) int32; bias: (rows,), or (E, rows)."""
        if ids is not None:
            return self._slots(x, w, bias, ids, n_slots, 1, share)
        return self._slots(x, w, bias, NOTHING, 1, x.x.shape[0], 1)

    def _slots(self, x: Input, w: Packed, bias: F32 | None, ids: Any, n_slots: int, tokens: int, share: int) -> Any:
        """As which.cuh has it: (n_slots * tokens, rows)."""
        y = np.empty((n_slots * tokens, w.rows), np.float32, like=x.x)
        rest = [np.int32(n) for n in (w.rows, w.columns, tokens, share)]
        arguments = (*w.streams, *x.arguments, together(bias), ids, y, *rest)
        kernel = self._kernel(w, "matvec", f"_{_AT_ONCE[tokens]}")
        kernel((-(-w.rows // _ROWS), n_slots), (_ROWS * _WARP,), arguments)
        return y

    def by_head(self, x: F32, stack: Weight) -> F32:
        """As reference by_head: x (T, H, n), stack (H, m, n) -> (T, H, m). Raises ValueError for other shapes."""
        tokens, heads, width = x.shape
        if stack.shape[::2] != (heads, width):
            shape = ", ".join(map(str, stack.shape))
            raise ValueError(f"{stack.name}: input of {heads} heads of width {width}, weight of shape {shape}")
        if not has_kernel(stack) or not x.size:
            return composed(x, stack, self.linear)
        w = packed(stack)
        given = self.input(x.reshape(-1, width), w.type)
        if tokens <= MOST:
            y = self._slots(given, w, None, NOTHING, tokens * heads, 1, heads)
        else:
            ids = np.arange(tokens * heads, dtype=np.int32, like=x) % np.int32(heads)
            y = self.grouped(given, w, None, grouped(ids, heads), 1)
        by_head: F32 = y.reshape(tokens, heads, -1)
        return by_head

    def grouped(self, x: Input, w: Packed, bias: F32 | None, groups: Groups, share: int) -> Any:
        """Row p // share of x times the matrix of pair p, for n pairs: (n, rows). bias: (E, rows). Rows of pairs
        that are in no group hold anything."""
        y = np.empty((groups.order.size, w.rows), np.float32, like=x.x)
        rest = [np.int32(n) for n in (w.rows, w.columns, share)]
        arguments = (*w.streams, *x.arguments, together(bias), groups.tiles, groups.order, y, *rest)
        self._kernel(w, "grouped")((len(groups.tiles), -(-w.rows // _ROWS)), (_ROWS * _WARP,), arguments)
        return y

    def _kernel(self, w: Packed, name: str, suffix: str = "") -> module.Kernel:
        source = "products" if w.type in BLOCKS else "plain"
        return module.get(source, f"{name}_{self.activations}{suffix}", w.type.name)

    def many(self, x: Any, w: Packed) -> Any:
        """Any number of rows times the weight, tile by tile: (T, rows)."""
        half = self.activations == "q8" and w.type not in (GGMLType.F32, GGMLType.BF16)
        scale: Any = None
        if half:
            largest = np.abs(x).max(axis=-1, keepdims=True)
            scale = np.ldexp(np.float32(1), np.frexp(largest)[1])  # beyond the largest number: the row is below 1
            x = (x / scale).astype(np.float16)
        at_once = max(1, _TILE // w.columns)
        if w.rows <= at_once:
            y = self._tile(x, w, 0, w.rows)
        else:
            y = np.empty((x.shape[0], w.rows), np.float32, like=x)
            for first in range(0, w.rows, at_once):
                n = min(at_once, w.rows - first)
                y[:, first : first + n] = self._tile(x, w, first, n)
        return y * scale if half else y

    def _tile(self, x: Any, w: Packed, first: int, n: int) -> Any:
        return (x @ values(w, first, n, x.dtype).T).astype(np.float32, copy=False)


def values(w: Packed, first: int, n: int, dtype: Any) -> Any:
    """Rows first .. first + n of a weight unpacked, (n, columns): float32, the bits of `dequantize`, or float16."""
    if w.type in PLAIN:
        size = 4 if w.type is GGMLType.F32 else 2
        data = w.streams[0].reshape(-1, w.columns * size)[first : first + n]
        if w.type is GGMLType.F16 and dtype == np.float16:
            return data.view(np.float16)
        return dequantize(data, w.type)
    out = np.empty((n, w.columns), dtype, like=w.streams[0])
    kernel = module.get("products", "values_f16" if dtype == np.float16 else "values_f32", w.type.name)
    units = n * (w.columns // 32)
    kernel((-(-units // 128),), (128,), (*w.streams, out, np.int64(first), np.int64(units), np.int32(w.columns)))
    return out
