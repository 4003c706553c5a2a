"""The functions of `reference/` by their names and signatures, over the kernels of one instruction set.

Each checks what Python can see, allocates the result and leaves the rest to the compiled module, which checks shapes
and indices once more. A function that is asked to show its steps (a tap) runs the readable composition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.compat import has_kernels, native
from ref_engine.files.pages import release
from ref_engine.files.types import GGMLType
from ref_engine.quant.codebooks import codebook
from ref_engine.quant.rows import cache_type, numbers, width
from ref_engine.reference import attention, ffn
from ref_engine.reference.attention import Tap
from ref_engine.reference.embed import embed
from ref_engine.reference.linear import Map, linear_q8
from ref_engine.reference.sums import F32
from ref_engine.spec import Pairing
from ref_engine.weights import Weight

_PACKED = "rows of 16"
CODEBOOK_OF = {
    GGMLType.IQ1_S: "iq1",
    GGMLType.IQ1_M: "iq1",
    GGMLType.IQ2_XXS: "iq2_xxs",
    GGMLType.IQ2_XS: "iq2_xs",
    GGMLType.IQ2_S: "iq2_s",
    GGMLType.IQ3_XXS: "iq3_xxs",
    GGMLType.IQ3_S: "iq3_s",
}
"""The codebooks of the types whose points are looked up when they are repacked."""


def as_f32(x: NDArray[Any]) -> F32:
    """Contiguous float32: x itself where it is that already."""
    return np.ascontiguousarray(x, np.float32)


def has_kernel(type: GGMLType) -> bool:
    """Whether products with weights of this type are compiled. The others run the definition, with the same bits."""
    return has_kernels and type.name in (*native.BLOCK_KINDS, *native.PLAIN_KINDS)


@dataclass(frozen=True)
class Kernels:
    """The kernels of one instruction set on n_threads threads. One call at a time: the scratch is shared."""

    table: native.Table
    n_threads: int

    def packed(self, weight: Weight) -> native.Packed:
        """The weight in interleaved rows, made at its first use and kept with it, or in its bounded cache."""

        def make() -> tuple[native.Packed, int]:
            rows = int(np.prod(weight.shape[:-1], dtype=np.int64))
            name = CODEBOOK_OF.get(weight.type)
            points = None if name is None else codebook(name)
            data = weight.data
            packed = native.Packed(
                weight.type.name,
                data,
                rows,
                weight.shape[-1],
                self.n_threads,
                points,
                lambda first, end: release(data[first:end]),
            )
            return packed, packed.nbytes

        if weight.bounded:
            found: native.Packed = weight.cache.get((weight.name, _PACKED), make, weight.nbytes)
            return found
        if _PACKED not in weight.kept:
            weight.kept[_PACKED] = make()[0]
        kept: native.Packed = weight.kept[_PACKED]
        return kept

    def embed(self, ids: NDArray[np.int64], weight: Weight) -> F32:
        """As reference embed; the pages of the file that it touched, up to 2 MiB for a row, are given back."""
        rows = embed(ids, weight)
        if ids.size:
            row = weight.nbytes // weight.shape[0]
            release(weight.data[int(ids.min()) * row : (int(ids.max()) + 1) * row])
        return rows

    def linear(self, x: F32, weight: Weight, bias: F32 | None = None) -> F32:
        """As reference linear_q8: x (T, columns), weight (rows, columns), bias (rows,) -> (T, rows)."""
        return self.linears(x, [(weight, bias)])[0]

    def linears(self, x: F32, maps: Sequence[Map]) -> list[F32]:
        """As reference linears_q8; x is rounded once for all weights of a kind.

        Types without a kernel (`has_kernel`) take the reference product."""
        x = as_f32(x)
        for weight, _ in maps:
            if x.shape[-1] != weight.shape[-1]:
                raise ValueError(f"{weight.name}: input of width {x.shape[-1]}, weight of width {weight.shape[-1]}")
        ys = [np.empty((x.shape[0], weight.shape[0]), np.float32) for weight, _ in maps]
        blocks = []
        for (weight, _), y in zip(maps, ys, strict=True):
            if not has_kernel(weight.type):
                y[...] = linear_q8(x, weight)
            elif weight.is_plain:
                self.table.plain(x, weight.data, weight.type.name, y, self.n_threads)
            else:
                blocks.append((self.packed(weight), y))
        if blocks:
            self.table.linears(x, blocks, self.n_threads)
        return [y if bias is None else y + bias for (_, bias), y in zip(maps, ys, strict=True)]

    def rms_norm(self, x: F32, weight: F32 | None, eps: float) -> F32:
        """As reference rms_norm: (..., D) -> (..., D)."""
        if weight is not None and weight.ndim > 1:  # rows of weights, one for each head
            return self.rms_norm(x, None, eps) * weight
        x = as_f32(x)
        y = np.empty_like(x)
        n = x.shape[-1]
        self.table.rms_norm(x.reshape(-1, n), weight, eps, y.reshape(-1, n), self.n_threads)
        return y

    def rope(self, x: F32, cos: F32, sin: F32, pairing: Pairing) -> F32:
        """As reference rope: x (T, H, Hd), cos and sin (T, n_rot / 2)."""
        x = as_f32(x)
        y = np.empty_like(x)
        self.table.rope(x, cos, sin, pairing == "adjacent", y, self.n_threads)
        return y

    def attend(
        self,
        q: F32,
        k: NDArray[Any],
        v: NDArray[Any],
        positions: NDArray[np.int64],
        *,
        scale: float,
        window: int | None = None,
        cap: float | None = None,
        sinks: F32 | None = None,
        slopes: F32 | None = None,
        seen: NDArray[np.bool_] | None = None,
        tap: Tap | None = None,
    ) -> F32:
        """As reference attend_ordered: q (T, H, Hd), k (S, K, Hd), v (S, K, Vd) as a cache holds them -> (T, H * Vd).

        Values may be a part of something wider, as those of latent attention are of the keys. What the kernel does not
        know (slopes, other masks) runs the definition."""
        if any(x is not None for x in (tap, slopes, seen)):
            return attention.attend_ordered(
                q, k, v, positions, scale=scale, window=window, cap=cap, sinks=sinks, slopes=slopes, seen=seen, tap=tap
            )
        if k.dtype != v.dtype:  # values are a part of the keys that is not whole blocks
            k, v = numbers(k), numbers(v)
        k = np.ascontiguousarray(k)
        if v.strides[-1] != v.itemsize:
            v = np.ascontiguousarray(v)
        out: F32 = np.empty((q.shape[0], q.shape[1] * width(v)), np.float32)
        self.table.attend(
            as_f32(q),
            k.view(np.uint8),
            v.view(np.uint8),
            cache_type(k),
            positions,
            scale,
            window or 0,
            cap or 0.0,
            1 / cap if cap else 0.0,
            None if sinks is None else as_f32(sinks),
            out,
            self.n_threads,
        )
        return out

    def attend_f32(self, q: F32, k: NDArray[Any], v: NDArray[Any], positions: NDArray[np.int64], **options: Any) -> F32:
        """As `attend`, but nothing is rounded to what the cache holds: for f32 mode."""
        return self.attend(q, as_f32(numbers(k)), as_f32(numbers(v)), positions, **options)

    def glu(self, gate: F32, up: F32, activation: str, constants: tuple[float, ...] = ()) -> F32:
        """As reference glu: (T, F), (T, F) -> (T, F). Raises ValueError for an unknown activation."""
        y = np.empty(gate.shape, np.float32)
        constants = constants if activation in ffn.UNITS else ()
        self.table.glu(activation, constants, as_f32(gate), as_f32(up), y, self.n_threads)
        return y

    def soft_cap(self, x: F32, cap: float) -> F32:
        """As reference soft_cap, any shape."""
        x = as_f32(x)
        y = np.empty_like(x)
        self.table.soft_cap(x.reshape(-1), 1 / cap, cap, y.reshape(-1), self.n_threads)
        return y
