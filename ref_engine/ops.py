"""The contract of a backend: the callables that the wiring is made of. A backend is a value of this type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ref_engine.reference.attention import Tap
from ref_engine.reference.linear import Map
from ref_engine.reference.sums import F32
from ref_engine.spec import Pairing
from ref_engine.weights import Weight


class Linear(Protocol):
    """x (T, columns), weight (rows, columns), bias (rows,) or None -> (T, rows)."""

    def __call__(self, x: F32, weight: Weight, bias: F32 | None = None) -> F32: ...


class Attend(Protocol):
    """q (T, H, Hd), k (S, K, Hd) and v (S, K, Vd) float32 or float16, positions (T,) -> (T, H * Vd)."""

    def __call__(
        self,
        q: F32,
        k: NDArray[np.floating[Any]],
        v: NDArray[np.floating[Any]],
        positions: NDArray[np.int64],
        *,
        scale: float,
        window: int | None,
        cap: float | None,
        sinks: F32 | None = None,
        slopes: F32 | None = None,
        seen: NDArray[np.bool_] | None = None,
        tap: Tap | None,
    ) -> F32: ...


@dataclass(frozen=True)
class Ops:
    """Each field has the signature and, in q8 mode, the bits of the function of that name in `reference/`."""

    name: str
    scope: Callable[[], AbstractContextManager[object]]  # entered around each pass: sets up threads
    embed: Callable[[NDArray[np.int64], Weight], F32]
    linear: Linear
    linears: Callable[[F32, Sequence[Map]], list[F32]]  # several maps of one input
    rms_norm: Callable[[F32, F32 | None, float], F32]
    layer_norm: Callable[[F32, F32 | None, F32 | None, float], F32]
    rope: Callable[[F32, F32, F32, Pairing], F32]
    attend: Attend
    glu: Callable[[F32, F32, str], F32]
    activation: Callable[[F32, str], F32]
    soft_cap: Callable[[F32, float], F32]
