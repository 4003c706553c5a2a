"""The contract of a backend: the callables that the wiring is made of. A backend is a value of this type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ref_engine.cache import Cache
from ref_engine.place import HOST, Place
from ref_engine.reference.attention import Tap
from ref_engine.reference.linear import Map
from ref_engine.reference.moe import Experts, Ids
from ref_engine.reference.moe import Tap as MoeTap
from ref_engine.reference.sums import F32
from ref_engine.spec import LayerSpec, Pairing, RopeSpec, RoutingSpec
from ref_engine.weights import LayerTensors, Weight, Weights


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


class Glu(Protocol):
    """gate (T, F), up (T, F), the activation's name and its constants -> (T, F)."""

    def __call__(self, gate: F32, up: F32, activation: str, constants: tuple[float, ...] = ()) -> F32: ...


class Route(Protocol):
    """Router logits (T, E) -> ids of the experts of each token (T, k) int32, best first, and their weights (T, k)."""

    def __call__(
        self,
        logits: F32,
        n_used: int,
        r: RoutingSpec,
        bias: F32 | None = None,
        given: Ids | None = None,
        tap: MoeTap | None = None,
    ) -> tuple[Ids, F32]: ...


class MoeFfn(Protocol):
    """x (T, D), ids (T, k) int32 of the experts of each token, weights (T, k) -> (T, D)."""

    def __call__(self, x: F32, ids: Ids, weights: F32, experts: Experts, *, tap: MoeTap | None = None) -> F32: ...


class CountExperts(Protocol):
    """ids (T, k) int32 of E experts -> tokens of each (E,) int64, added to `counts` in its place where it is given."""

    def __call__(self, ids: Ids, n_expert: int, counts: NDArray[np.int64] | None = None) -> NDArray[np.int64]: ...


KeysAndValues = tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]
"""Of one sequence: positions of its new tokens (n,), the cache's keys (S, K, Hd) and values (S, K, Vd) of all its
tokens, whose last n rows are yet to be written."""


class AttentionHalf(Protocol):
    """x (T, D), the stream, -> the stream with what the layer's mixer adds; None where it has to be composed.

    turn: cosines and sines (T, n_rot / 2) of the layer's rotation. sequences: those whose tokens the rows are.
    """

    def __call__(
        self,
        x: F32,
        layer: LayerSpec,
        tensors: LayerTensors,
        turn: tuple[F32, F32] | None,
        sequences: Sequence[KeysAndValues],
    ) -> F32 | None: ...


class FfnHalf(Protocol):
    """The same for the layer's feed-forward part."""

    def __call__(self, x: F32, layer: LayerSpec, tensors: LayerTensors) -> F32 | None: ...


class AllLayers(Protocol):
    """x (T, D), the stream that enters the first layer, -> the stream that leaves the last, with keys and values in the
    caches: of all tokens or, if `last`, of each sequence's last (sequences, D). None where the caches are not of the
    kind it knows.

    turns: cosines and sines (T, n_rot / 2). sequences: each cache and the positions (n,) of its new tokens, which are
    the next rows. counts: of (layer, E), the array (E,) that its experts' tokens are added to.
    """

    def __call__(
        self,
        x: F32,
        turns: Mapping[RopeSpec, tuple[F32, F32]],
        sequences: Sequence[tuple[Cache, NDArray[np.int64]]],
        counts: Callable[[int, int], NDArray[np.int64]],
        last: bool,
    ) -> F32 | None: ...


class ByHead(Protocol):
    """x (T, H, n), stack (H, m, n), a matrix for each head -> (T, H, m)."""

    def __call__(self, x: F32, stack: Weight) -> F32: ...


class CausalConv(Protocol):
    """x (T, C), the (W - 1) * step rows before them, weight (C, W) -> (T, C) and the rows before the next token."""

    def __call__(self, x: F32, before: F32, weight: F32, step: int = 1) -> tuple[F32, F32]: ...


Recurrence = Callable[[F32, F32, F32, F32, F32, F32], tuple[F32, F32]]
"""Five inputs and the state before the first token -> the output and the state after the last, both fresh arrays."""


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
    glu: Glu
    activation: Callable[[F32, str], F32]
    soft_cap: Callable[[F32, float], F32]
    route: Route
    count_experts: CountExperts
    moe_ffn: MoeFfn
    causal_conv: CausalConv
    gated_delta_rule: Recurrence
    ssm_scan: Recurrence
    attention_half: AttentionHalf | None = None  # coarser entries; None: always composed
    ffn_half: FfnHalf | None = None
    all_layers: Callable[[Sequence[LayerSpec], Weights], AllLayers | None] | None = None  # of a model, made once
    by_head: ByHead | None = None
    recorder: Any = None  # makes recordings of passes, see replay.py and gpu/graph.py; None: there are none
    place: Place = HOST  # where the arrays are that the others take and give; token ids and positions are the host's

    def composed(self) -> Ops:
        """The same without the coarser entries, for whoever puts something of his own in the place of the others."""
        return replace(self, attention_half=None, ffn_half=None, all_layers=None, by_head=None)
