"""Types of the compiled module; what each does is said in _native.pyx."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ref_engine.quant.rows import CacheType

F32 = NDArray[np.float32]
Ids = NDArray[np.int32]
ExpertMap = tuple["Stack", F32 | None, F32 | None]
# bias, gate, select_by, groups, groups_used, cap, inverse_cap, normalise, least, scale
Routing = tuple[F32 | None, str, str, int, int, float, float, bool, float, float | None]

BLOCK_KINDS: tuple[str, ...]
PLAIN_KINDS: tuple[str, ...]
CACHE_KINDS: tuple[str, ...]
GLU_KINDS: tuple[str, ...]
ACTIVATION_KINDS: tuple[str, ...]
ALONE_KINDS: tuple[str, ...]
GATES: tuple[str, ...]
CHOICES: tuple[str, ...]
ISAS: tuple[str, ...]
HAS_OPENMP: bool

def compiled_isas() -> tuple[str, ...]: ...
def cpu_isas() -> tuple[str, ...]: ...
def packed_bytes(type: str, rows: int, columns: int) -> int: ...
def inside(ids: Ids, n: int) -> bool: ...

class Packed:
    kind: int
    rows: int
    columns: int
    nbytes: int
    def __init__(
        self,
        type: str,
        data: NDArray[np.uint8],
        rows: int,
        columns: int,
        n_threads: int,
        points: NDArray[np.int8] | None = None,
        read: Callable[[int, int], object] | None = None,
    ) -> None: ...

class Stack:
    kind: int
    experts: int
    rows: int
    columns: int
    def __init__(self, type: str, experts: int, rows: int, columns: int) -> None: ...
    def put(self, e: int, w: Packed) -> None: ...
    def lay(self, data: NDArray[np.uint8]) -> None: ...
    def missing(self, ids: Ids) -> list[int]: ...

Norm = tuple[F32 | None, float] | None

class Map:
    def __init__(self, weight: Packed | tuple[str, NDArray[np.uint8], int, int], bias: F32 | None) -> None: ...

class FfnHalf:
    def __init__(
        self,
        up: Map,
        gate: Map | None,
        down: Map,
        activation: str,
        constants: tuple[float, ...],
        gated: bool,
        before: Norm,
        after: Norm,
        scale: float | None,
    ) -> None: ...
    def run(self, table: Table, x: F32, out: F32, n_threads: int) -> None: ...

class AttentionHalf:
    def __init__(
        self,
        q: Map,
        k: Map,
        v: Map,
        output: Map,
        n_head: int,
        n_head_kv: int,
        q_norm: Norm,
        k_norm: Norm,
        turned: int,
        adjacent: bool,
        query_scale: float,
        scale: float,
        window: int,
        cap: float,
        inverse_cap: float,
        sinks: F32 | None,
        before: Norm,
        after: Norm,
        residual_scale: float | None,
    ) -> None: ...
    def run(
        self,
        table: Table,
        x: F32,
        cos: F32 | None,
        sin: F32 | None,
        shares: list[tuple[NDArray[np.int64], CacheType, NDArray[np.uint8], NDArray[np.uint8]]],
        out: F32,
        n_threads: int,
    ) -> None: ...

class MoeHalf:
    def __init__(
        self,
        router: Map,
        up: ExpertMap,
        gate: ExpertMap | None,
        down: ExpertMap,
        n_used: int,
        activation: str,
        constants: tuple[float, ...],
        fused: bool,
        weigh_input: bool,
        routing: Routing,
        before: Norm,
        after: Norm,
        scale: float | None,
    ) -> None: ...

class Places:
    def __init__(
        self, layers: Layers, kind: CacheType, rows: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    ) -> None: ...

class Layers:
    width: int
    n_attention: int
    n_mixture: int
    narrows: bool
    n_turn: int
    def __init__(self, halves: list[AttentionHalf | FfnHalf | MoeHalf], turns: list[int]) -> None: ...
    def run(
        self,
        table: Table,
        x: F32,
        turns: list[tuple[F32, F32]],
        shares: list[tuple[Places, NDArray[np.int64]]],
        counts: list[NDArray[np.int64]],
        fetch: Callable[[int, int], None],
        out: F32,
        n_threads: int,
    ) -> None: ...

class Table:
    name: str
    def __init__(self, isa: str) -> None: ...
    def linears(self, x: F32, maps: list[tuple[Packed, F32]], n_threads: int) -> None: ...
    def plain(self, x: F32, data: NDArray[np.uint8], type: str, y: F32, n_threads: int) -> None: ...
    def rms_norm(self, x: F32, weight: F32 | None, eps: float, y: F32, n_threads: int) -> None: ...
    def rope(self, x: F32, cos: F32, sin: F32, adjacent: bool, y: F32, n_threads: int) -> None: ...
    def attend(
        self,
        q: F32,
        k: NDArray[np.uint8],
        v: NDArray[np.uint8],
        kind: CacheType,
        positions: NDArray[np.int64],
        scale: float,
        window: int,
        cap: float,
        inverse_cap: float,
        sinks: F32 | None,
        out: F32,
        n_threads: int,
    ) -> None: ...
    def glu(
        self, activation: str, constants: tuple[float, ...], gate: F32, up: F32, y: F32, n_threads: int
    ) -> None: ...
    def route(
        self,
        logits: F32,
        bias: F32 | None,
        gate: str,
        select_by: str,
        groups: int,
        groups_used: int,
        cap: float,
        inverse_cap: float,
        normalise: bool,
        least: float,
        scale: float | None,
        ids: Ids,
        weights: F32,
        n_threads: int,
    ) -> None: ...
    def moe(
        self,
        x: F32,
        ids: Ids,
        weights: F32,
        up: ExpertMap,
        gate: ExpertMap | None,
        down: ExpertMap,
        activation: str,
        constants: tuple[float, ...],
        fused: bool,
        weigh_input: bool,
        out: F32,
        n_threads: int,
    ) -> None: ...
    def soft_cap(self, x: F32, inverse_cap: float, cap: float, y: F32, n_threads: int) -> None: ...

def activate(table: Table, name: str, x: F32, y: F32, n_threads: int) -> None: ...
def causal_conv(table: Table, x: F32, before: F32, weight: F32, step: int, y: F32, n_threads: int) -> None: ...
def gated_delta_rule(
    table: Table, q: F32, k: F32, v: F32, decay: F32, beta: F32, before: F32, after: F32, out: F32, n_threads: int
) -> None: ...
def ssm_scan(
    table: Table, x: F32, dt: F32, decay: F32, b: F32, c: F32, before: F32, after: F32, out: F32, n_threads: int
) -> None: ...
def dots_alone(table: Table, n: int) -> int: ...
def read_alone(table: Table, data: NDArray[np.uint8]) -> int: ...
