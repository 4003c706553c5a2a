"""Time, bytes and multiply-adds of each operation of a pass, beside what the machine can do at the most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ref_engine.bench.ours import drawn
from ref_engine.compat import native
from ref_engine.kernels.dispatch import table
from ref_engine.model import Model
from ref_engine.ops import Ops
from ref_engine.place import Place, to_host
from ref_engine.quant.rows import width
from ref_engine.reference.moe import Experts
from ref_engine.spec import FfnSpec, LayerSpec
from ref_engine.weights import LayerTensors, Weight


@dataclass
class Operation:
    """Of one entry of `Ops`: calls, seconds, bytes of weights read, multiply-adds with weights and with the cache."""

    name: str
    calls: int = 0
    seconds: float = 0.0
    nbytes: int = 0
    macs: int = 0


@dataclass(frozen=True)
class Ceilings:
    """Of one thread: bytes a second that it reads, integer multiply-adds a second that it does on registers."""

    bytes_per_second: float
    macs_per_second: float


@dataclass(frozen=True)
class Profile:
    """One pass of so many tokens after so many others; what is not in an operation is the Python around them."""

    tokens: int
    past: int
    seconds: float
    operations: list[Operation]


def profile(model: Model, tokens: int, past: int = 0, repeat: int = 3) -> Profile:
    """The fastest of `repeat` passes, each from a cache that holds `past` tokens."""
    passes = []
    plain = model.ops
    for _ in range(repeat):
        cache = model.new_cache(past + tokens + 1)
        model.ops = plain
        if past:
            model.last_logits(drawn(past, model.spec.n_vocab), cache)
        counted: dict[str, Operation] = {}
        model.ops = _watched(plain, counted)
        try:
            start = time.perf_counter()
            model.last_logits(drawn(tokens, model.spec.n_vocab, 1), cache)
            seconds = time.perf_counter() - start
        finally:
            model.ops = plain
        passes.append(Profile(tokens, past, seconds, sorted(counted.values(), key=lambda o: -o.seconds)))
    return min(passes, key=lambda p: p.seconds)


def ceilings(isa: str | None = None, nbytes: int = 256 << 20, dots: int = 1 << 21) -> Ceilings:
    """The best of five measurements of each, on one thread."""
    kernels = table(isa)
    data = np.ones(nbytes, np.uint8)
    return Ceilings(
        nbytes / _best(lambda: native.read_alone(kernels, data)),
        512 * dots / _best(lambda: native.dots_alone(kernels, dots)),
    )


def _best(run: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _watched(ops: Ops, counted: dict[str, Operation]) -> Ops:
    """The same operations, each counted under its name; halves of layers, not all layers in one."""
    watched: dict[str, Any] = {"all_layers": None}
    for field in fields(ops):
        function = getattr(ops, field.name)
        if callable(function) and field.name not in ("scope", "all_layers"):
            watched[field.name] = _counting(field.name, function, counted, ops.place)
    return replace(ops, **watched)


def _counting(
    name: str, function: Callable[..., Any], counted: dict[str, Operation], place: Place
) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Any:
        start = time.perf_counter()
        result = function(*args, **more)
        place.finish()
        seconds = time.perf_counter() - start
        if result is not None:  # a half that has to be composed
            operation = counted.setdefault(name, Operation(name))
            operation.calls += 1
            operation.seconds += seconds
            nbytes, macs = _work(name, args)
            operation.nbytes += nbytes
            operation.macs += macs
        return result

    return call


def _work(name: str, args: tuple[Any, ...]) -> tuple[int, int]:
    """Bytes of weights and multiply-adds of one call."""
    if name == "linear":
        return _products([args[1]], len(args[0]))
    if name == "linears":
        return _products([weight for weight, _ in args[1]], len(args[0]))
    if name == "by_head":
        x, stack = args
        return _products([stack], len(x))
    if name == "attend":
        q, k, v, positions = args[:4]
        return 0, int((positions + 1).sum()) * q.shape[1] * (width(k) + width(v))
    if name == "attention_half":
        return _attention_half(*args)
    if name == "ffn_half":
        x, layer, tensors = args
        return _products(_ffn_weights(layer, tensors), len(x))
    if name == "moe_ffn":
        x, ids, _, experts = args
        return _experts(ids, experts)
    return 0, 0


def _products(weights: Iterable[Weight], n_tokens: int) -> tuple[int, int]:
    weights = list(weights)
    return sum(w.nbytes for w in weights), n_tokens * sum(int(np.prod(w.shape)) for w in weights)


def _attention_half(
    x: Any, layer: LayerSpec, tensors: LayerTensors, turn: object, sequences: list[Any]
) -> tuple[int, int]:
    nbytes, macs = _products((tensors[f"attn_{n}.weight"] for n in ("q", "k", "v", "output")), len(x))
    for positions, keys, values in sequences:
        heads = layer.mixer.n_head  # type: ignore[union-attr]
        macs += int((positions + 1).sum()) * heads * (width(keys) + width(values))
        nbytes += keys.nbytes + values.nbytes
    return nbytes, macs


def _ffn_weights(layer: LayerSpec, tensors: LayerTensors) -> list[Weight]:
    f = layer.ffn
    if not isinstance(f, FfnSpec):
        return []
    names = (f.up, f.gate, f.down) if f.gated and not f.fused else (f.up, f.down)
    return [tensors[f"{name}.weight"] for name in names]


def _experts(ids: Any, experts: Experts) -> tuple[int, int]:
    stacks = [s.weight for s in (experts.up, experts.gate, experts.down) if s is not None]
    chosen = np.unique(to_host(ids)).size
    return (
        sum(w.nbytes // w.shape[0] * chosen for w in stacks),
        ids.size * sum(int(np.prod(w.shape[1:])) for w in stacks),
    )
