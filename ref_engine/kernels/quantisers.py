"""`quant.quantize.quantize` once more, compiled: the same bytes, many times faster.

    quantize = quantiser()                      # compiled where the extension is there, else the definition
    quantize(rows, GGMLType.Q4_K, importance)   # as quant.quantize.quantize

`c/quantize_*.h` hold the bodies, written once over words of as many lanes as an instruction set has. Each lane is a
group of weights of its own, so every sum runs in the order of the definition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ref_engine.compat import native_quantize, why_no_quantisers
from ref_engine.errors import ModelError, RefEngineError
from ref_engine.files.types import GGMLType, row_bytes
from ref_engine.kernels.dispatch import chosen_isa
from ref_engine.kernels.threads import usable_threads
from ref_engine.quant.codebooks import E2M1_TWICE, IQ4_VALUES
from ref_engine.quant.lattice import TOO_LARGE, lattice
from ref_engine.quant.quantize import check_importance, check_type
from ref_engine.quant.quantize import quantize as definition

Quantize = Callable[[NDArray[Any], GGMLType, NDArray[Any] | None], NDArray[np.uint8]]
Backend = Literal["native", "numpy"]

_CODEBOOKS: Final[Mapping[GGMLType, tuple[str, int]]] = MappingProxyType(
    {
        GGMLType.IQ1_S: ("iq1", 3),
        GGMLType.IQ1_M: ("iq1", 3),
        GGMLType.IQ2_XXS: ("iq2_xxs", 2),
        GGMLType.IQ2_XS: ("iq2_xs", 2),
        GGMLType.IQ2_S: ("iq2_s", 1),
        GGMLType.IQ3_XXS: ("iq3_xxs", 2),
        GGMLType.IQ3_S: ("iq3_s", 3),
    }
)
"""As in quant/quantize_iq*.py: the codebook, and at how many distances neighbours are looked for."""

_VALUES: Final[Mapping[GGMLType, tuple[int, ...]]] = MappingProxyType(
    {
        GGMLType.IQ4_NL: IQ4_VALUES,
        GGMLType.IQ4_XS: IQ4_VALUES,
        GGMLType.MXFP4: E2M1_TWICE,
        GGMLType.NVFP4: E2M1_TWICE,
    }
)


def has_quantiser(type: GGMLType) -> bool:
    """Whether quantising to this type is compiled. The others run the definition, with the same bytes."""
    return native_quantize is not None and type.name in native_quantize.KINDS


def quantiser(backend: Backend | None = None, n_threads: int | None = None) -> Quantize:
    """A function that packs rows: "native" the compiled one, "numpy" the definition, None the faster one there is.

    Raises RefEngineError where the compiled one is asked for and is not there.
    """
    if backend == "numpy" or (backend is None and native_quantize is None):
        return definition
    if native_quantize is None:
        raise RefEngineError(why_no_quantisers)
    return Compiled(chosen_isa(), usable_threads(n_threads))


@dataclass(frozen=True)
class Compiled:
    """The compiled quantisers of one instruction set on n_threads threads; any number of them gives the same bytes."""

    isa: str
    n_threads: int

    def __call__(self, rows: NDArray[Any], type: GGMLType, importance: NDArray[Any] | None = None) -> NDArray[np.uint8]:
        """As `quant.quantize.quantize`, with the same errors."""
        if not has_quantiser(type):
            return definition(rows, type, importance)
        check_type(type, importance)
        columns = rows.shape[-1]
        nbytes = row_bytes(type, columns)
        check_importance(importance, columns)
        flat = np.ascontiguousarray(rows, np.float32).reshape(-1, columns)
        cost = None if importance is None else np.ascontiguousarray(importance, np.float32)
        out = np.empty((len(flat), nbytes), np.uint8)
        grid = _codebook(*_CODEBOOKS[type]) if type in _CODEBOOKS else None
        values = np.array(_VALUES[type], np.float32) if type in _VALUES else None
        status = native_quantize.quantize(type.name, flat, cost, grid, values, out, self.isa, self.n_threads)
        if status >= 0:
            row, column = divmod(status, columns)
            raise ModelError(f"weight {flat[row, column]} in row {row}, column {column} cannot be quantised")
        if status != native_quantize.QUANTIZED:
            raise ModelError(TOO_LARGE)
        return out.reshape(*rows.shape[:-1], nbytes)


@cache
def _codebook(name: str, distances: int) -> native_quantize.Codebook:
    grid = lattice(name, distances)
    return native_quantize.Codebook(grid.ranks, grid.index_of, grid.start, grid.count, grid.near, grid.bits)
