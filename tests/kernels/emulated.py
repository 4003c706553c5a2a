"""The compiled module `_native` for a processor that is not here: the same names, run by an emulator.

    emulator = Emulator(command, "neon")       # a process that runs neon/driver.c
    kernels = EmulatedKernels(Table(emulator), 2)
    kernels.linear(x, weight)

Only what the tests of kernels call is here, and nothing is checked: that is the compiled module's part.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.compat import native
from ref_engine.files.types import GGMLType
from ref_engine.kernels.ops import CODEBOOK_OF, Kernels
from ref_engine.quant.codebooks import codebook
from ref_engine.quant.rows import CacheType
from ref_engine.weights import Weight

F32 = NDArray[np.float32]
Array = NDArray[Any] | None
Norm = tuple[F32 | None, float] | None
HEADER = struct.Struct("<16s2i48q16f32q")  # `request` of neon/driver.c


class Emulator:
    """A process that runs one call after the other."""

    def __init__(self, command: Sequence[str], isa: str) -> None:
        self.isa = native.ISAS.index(isa)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(
        self,
        name: str,
        ints: Sequence[int],
        floats: Sequence[float],
        arrays: Sequence[Array],
        results: Sequence[NDArray[Any]],
        n_threads: int = 1,
    ) -> None:
        """One call of a kernel, whose fields neon/driver.c lists; what it writes goes into the results."""
        data = [b"" if a is None else np.ascontiguousarray(a).tobytes() for a in arrays]
        sizes = [-1 if a is None else len(d) for a, d in zip(arrays, data, strict=True)]
        header = HEADER.pack(
            name.encode(), self.isa, n_threads, *filled(ints, 48, 0), *filled(floats, 16, 0.0), *filled(sizes, 32, -1)
        )
        pipe, answers = self.process.stdin, self.process.stdout
        assert pipe is not None and answers is not None
        pipe.write(b"".join([header, *data]))
        pipe.flush()
        for out in results:
            got = answers.read(out.nbytes)
            assert len(got) == out.nbytes, f"{name}: the emulated process ended with {self.process.wait()}"
            out[...] = np.frombuffer(got, out.dtype).reshape(out.shape)

    def close(self) -> None:
        self.process.communicate(timeout=10)
        assert self.process.returncode == 0


def filled(values: Sequence[Any], n: int, rest: Any) -> list[Any]:
    assert len(values) <= n
    return [*values, *[rest] * (n - len(values))]


def matrix(type: str, rows: int, columns: int) -> list[int]:
    """The four numbers by which the driver knows a matrix."""
    if type in native.PLAIN_KINDS:
        return [-1 - native.PLAIN_KINDS.index(type), rows, columns, 0]
    return [native.BLOCK_KINDS.index(type), rows, columns, 0]


def stored(type: str, *data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Matrices as the driver takes them: behind the codebook of their type, if it has one."""
    name = CODEBOOK_OF.get(GGMLType[type])
    points = [] if name is None else [codebook(name).view(np.uint8).reshape(-1)]
    return np.concatenate([*points, *(each.reshape(-1).view(np.uint8) for each in data)])


def unit(activation: str, constants: Sequence[float]) -> tuple[int, list[float]]:
    return native.GLU_KINDS.index(activation), filled(constants, 2, 0.0)


class EmulatedKernels(Kernels):
    """Weights are repacked by the driver, anew in each call."""

    def packed(self, weight: Weight) -> Any:
        return weight


class Table:
    """As native.Table."""

    def __init__(self, emulator: Emulator) -> None:
        self.call = emulator.call

    def linears(self, x: F32, maps: list[tuple[Weight, F32]], n_threads: int) -> None:
        for weight, y in maps:
            size = 256 if weight.activation == "q8_k" else 32
            ints = [x.shape[0], size, *matrix(weight.type.name, *weight.shape)]
            self.call("linear", ints, (), [x, stored(weight.type.name, weight.data), None, None], [y], n_threads)

    def plain(self, x: F32, data: NDArray[np.uint8], type: str, y: F32, n_threads: int) -> None:
        ints = [native.PLAIN_KINDS.index(type), len(x), y.shape[1], x.shape[1]]
        self.call("plain", ints, (), [x, data], [y], n_threads)

    def rms_norm(self, x: F32, weight: F32 | None, eps: float, y: F32, n_threads: int) -> None:
        self.call("rms_norm", x.shape, [eps], [x, weight], [y], n_threads)

    def rope(self, x: F32, cos: F32, sin: F32, adjacent: bool, y: F32, n_threads: int) -> None:
        self.call("rope", [*x.shape, cos.shape[1], adjacent], (), [x, cos, sin], [y], n_threads)

    def attend(
        self, q: F32, k: NDArray[np.uint8], v: NDArray[np.uint8], kind: CacheType, positions: NDArray[np.int64],
        scale: float, window: int, cap: float, inverse_cap: float, sinks: F32 | None, out: F32, n_threads: int,
    ) -> None:  # fmt: skip
        (T, H, Hd), (S, K, nbytes) = q.shape, v.shape
        width = nbytes // 34 * 32 if kind == "q8_0" else nbytes // (2 if kind == "f16" else 4)
        ints = [native.CACHE_KINDS.index(kind), T, H, K, Hd, width, S, window]
        self.call("attend", ints, [scale, cap, inverse_cap], [q, k, v, positions, sinks], [out], n_threads)

    def glu(self, activation: str, constants: tuple[float, ...], gate: F32, up: F32, y: F32, n_threads: int) -> None:
        kind, floats = unit(activation, constants)
        self.call("glu", [kind, gate.size], floats, [gate, up], [y], n_threads)

    def soft_cap(self, x: F32, inverse_cap: float, cap: float, y: F32, n_threads: int) -> None:
        self.call("soft_cap", [x.size], [inverse_cap, cap], [x], [y], n_threads)

    def route(
        self, logits: F32, bias: F32 | None, gate: str, select_by: str, groups: int, groups_used: int, cap: float,
        inverse_cap: float, normalise: bool, least: float, scale: float | None, ids: NDArray[np.int32], weights: F32,
        n_threads: int,
    ) -> None:  # fmt: skip
        kinds = [native.GATES.index(gate), native.CHOICES.index(select_by)]
        ints = [*logits.shape, ids.shape[1], *kinds, groups, groups_used, normalise, scale is not None]
        floats = [cap, inverse_cap, least, 1.0 if scale is None else scale]
        self.call("route", ints, floats, [logits, bias], [ids, weights], n_threads)

    def moe(
        self, x: F32, ids: NDArray[np.int32], weights: F32, up: Any, gate: Any, down: Any, activation: str,
        constants: tuple[float, ...], fused: bool, weigh_input: bool, out: F32, n_threads: int,
    ) -> None:  # fmt: skip
        kind, floats = unit(activation, constants)
        ints = [*ids.shape, up[0].experts, kind, fused or gate is not None, fused, weigh_input]
        arrays: list[Array] = [x, weights, ids]
        for part in (up, gate, down):
            stack, bias, scale = part or (None, None, None)
            ints += [0] * 4 if stack is None else matrix(stack.type, stack.rows, stack.columns)
            arrays += [None if stack is None else stored(stack.type, *stack.data), bias, scale]
        self.call("moe", ints, floats, arrays, [out], n_threads)


def activate(table: Table, name: str, x: F32, y: F32, n_threads: int) -> None:
    """As native.activate."""
    table.call("activate", [native.ALONE_KINDS.index(name), x.size], (), [x], [y], n_threads)


def causal_conv(table: Table, x: F32, before: F32, weight: F32, step: int, y: F32, n_threads: int) -> None:
    """As native.causal_conv."""
    table.call("conv", [*x.shape, len(weight), step], (), [x, before, weight], [y], n_threads)


def gated_delta_rule(
    table: Table, q: F32, k: F32, v: F32, decay: F32, beta: F32, before: F32, after: F32, out: F32, n_threads: int
) -> None:
    """As native.gated_delta_rule."""
    ints = [*q.shape, v.shape[2], decay.shape[2]]
    table.call("delta", ints, (), [q, k, v, decay, beta, before], [after, out], n_threads)


def ssm_scan(
    table: Table, x: F32, dt: F32, decay: F32, b: F32, c: F32, before: F32, after: F32, out: F32, n_threads: int
) -> None:
    """As native.ssm_scan."""
    ints = [*x.shape, b.shape[2], b.shape[1], decay.shape[1]]
    table.call("scan", ints, (), [x, dt, decay, b, c, before], [after, out], n_threads)


class Stack:
    """As native.Stack."""

    def __init__(self, type: str, experts: int, rows: int, columns: int) -> None:
        self.type, self.experts, self.rows, self.columns = type, experts, rows, columns
        self.held: dict[int, NDArray[np.uint8]] = {}

    def put(self, e: int, w: Weight) -> None:
        self.held[e] = w.data

    def lay(self, data: NDArray[np.uint8]) -> None:
        self.held = dict(enumerate(np.split(data, self.experts)))

    def missing(self, ids: NDArray[np.int32]) -> list[int]:
        return [e for e in np.unique(ids).tolist() if e not in self.held]

    @property
    def data(self) -> list[NDArray[np.uint8]]:
        """Of all experts; zeros for those that nobody asks for."""
        some = next(iter(self.held.values()))
        return [self.held.get(e, np.zeros_like(some)) for e in range(self.experts)]


class Map:
    """As native.Map."""

    def __init__(self, weight: Any, bias: F32 | None) -> None:
        if isinstance(weight, Weight):
            weight = (weight.type.name, weight.data, *weight.shape)
        self.type, self.data, self.rows, self.columns = weight
        self.arrays: list[Array] = [stored(self.type, self.data), bias, None]
        self.ints = matrix(self.type, self.rows, self.columns)


def half(T: int, D: int, before: Norm, after: Norm, scale: float | None) -> tuple[list[int], list[float], list[Array]]:
    """What both halves begin with."""
    ints = [T, D, scale is not None, before is not None, after is not None]
    norms = [norm or (None, 0.0) for norm in (before, after)]
    return ints, [1.0 if scale is None else scale, *(eps for _, eps in norms)], [w for w, _ in norms]


class FfnHalf:
    """As native.FfnHalf."""

    def __init__(
        self, up: Map, gate: Map | None, down: Map, activation: str, constants: tuple[float, ...], gated: bool,
        before: Norm, after: Norm, scale: float | None,
    ) -> None:  # fmt: skip
        self.norms = (before, after, scale)
        kind, self.floats = unit(activation, constants)
        self.ints, self.arrays = [kind, gated, gated and gate is None], list[Array]()
        for m in (up, gate, down):
            self.ints += [0] * 4 if m is None else m.ints
            self.arrays += [None] * 3 if m is None else m.arrays

    def run(self, table: Table, x: F32, out: F32, n_threads: int) -> None:
        ints, floats, norms = half(*x.shape, *self.norms)
        arrays = [x, *norms, *self.arrays]
        table.call("ffn_half", ints + self.ints, floats + self.floats, arrays, [out], n_threads)


class AttentionHalf:
    """As native.AttentionHalf."""

    def __init__(
        self, q: Map, k: Map, v: Map, output: Map, n_head: int, n_head_kv: int, q_norm: Norm, k_norm: Norm, turned: int,
        adjacent: bool, query_scale: float, scale: float, window: int, cap: float, inverse_cap: float,
        sinks: F32 | None, before: Norm, after: Norm, residual_scale: float | None,
    ) -> None:  # fmt: skip
        self.norms = (before, after, residual_scale)
        weights, eps = zip(*(norm or (None, 0.0) for norm in (q_norm, k_norm)), strict=True)
        self.begin = [turned, adjacent, q_norm is not None, k_norm is not None]
        self.attend = [n_head, n_head_kv, q.rows // n_head, v.rows // n_head_kv, 0, window]
        self.sinks, self.weights, self.maps = sinks, weights, (q, k, v, output)
        self.floats = [*eps, query_scale, scale, cap, inverse_cap]

    def run(
        self, table: Table, x: F32, cos: F32 | None, sin: F32 | None, shares: list[Any], out: F32, n_threads: int
    ) -> None:
        ints, floats, norms = half(*x.shape, *self.norms)
        counts = [len(positions) for positions, *_ in shares]
        rows = np.cumsum([0, *counts])[:-1]
        places = np.array([(row, n, len(k)) for row, n, (*_, k, _) in zip(rows, counts, shares, strict=True)], np.int64)
        (kind,) = {kind for _, kind, *_ in shares}
        positions, keys, values = (np.concatenate([share[i].reshape(-1) for share in shares]) for i in (0, 2, 3))
        ints += [*self.begin, len(shares), native.CACHE_KINDS.index(kind), len(x), *self.attend]
        arrays = [x, *norms, *self.weights, cos, sin, self.sinks, places, positions, keys, values]
        for m in self.maps:
            ints += m.ints
            arrays += m.arrays
        table.call("attention_half", ints, floats + self.floats, arrays, [out, keys, values], n_threads)
        for memory, i in ((keys, 2), (values, 3)):
            ends = np.cumsum([share[i].size for share in shares])[:-1]
            for share, part in zip(shares, np.split(memory, ends), strict=True):
                share[i][...] = part.reshape(share[i].shape)
