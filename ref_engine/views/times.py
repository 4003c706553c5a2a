"""Where the time of a pass goes: every callable of a backend with a clock around it.

Nothing is traced meanwhile, so what runs is what runs in earnest: the fused kernels, where there are any.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

from ref_engine.cache import Cache
from ref_engine.errors import RefEngineError
from ref_engine.model import Model
from ref_engine.ops import Ops
from ref_engine.place import Place
from ref_engine.reference.moe import Experts
from ref_engine.views.passes import PIECE, Steps, cache_for, finished, unnoticed
from ref_engine.weights import Weight

Phase = Literal["prompt", "token"]
REST = "between operations"
_PLACE = re.compile(r"^blk\.\d+\.|\.weight$|\[\d+\]$")


@dataclass(frozen=True)
class Operation:
    """All calls of one operation on one kind of tensor. runs: "kernel" or "numpy", whose code it is ("numpy" also
    where NumPy hands it over to a GPU's library).

    tensors: their names without the layer, such as "attn_q attn_k attn_v" for three products of one input; "" for an
    operation without weights.
    """

    name: str
    tensors: str
    runs: str
    calls: int
    seconds: float


@dataclass(frozen=True)
class Times:
    """The quickest of several passes. operations: slowest first; the last, "between operations", is what is left of
    the total: additions, views, Python."""

    backend: str
    activations: str
    phase: Phase
    n_tokens: int
    seconds: float
    operations: tuple[Operation, ...]


class _Clock:
    """Adds up calls and seconds by operation."""

    def __init__(self) -> None:
        self.spent: dict[tuple[str, str, str], list[float]] = {}  # calls, seconds

    def around(self, name: str, function: Callable[..., Any], place: Place) -> Callable[..., Any]:
        runs = "kernel" if _is_compiled(function) else "numpy"

        def timed(*args: Any, **more: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **more)
            place.finish()
            seconds = time.perf_counter() - began
            entry = self.spent.setdefault((name, _tensors(args), runs), [0, 0.0])
            entry[0] += 1
            entry[1] += seconds
            return result

        return timed


def times_steps(model: Model, ids: Sequence[int], phase: Phase = "prompt", repeat: int = 3) -> Steps[Times]:
    """As `times`."""
    if repeat < 1:
        raise RefEngineError(f"a pass is measured at least once, not {repeat} times")
    known = model.checked_ids(ids).tolist()
    if phase == "token" and len(known) < 2:
        raise RefEngineError("a token after a prompt needs a text of two tokens at least")
    if phase == "token" and not model.spec.causal:
        raise RefEngineError("this model sees the whole text at once: it has no token after a prompt")
    before, measured = (known[:-1], known[-1:]) if phase == "token" else ([], known)
    cache = cache_for(model, len(known))
    best: tuple[float, _Clock] | None = None
    for _ in range(repeat):
        if cache.n_done != len(before):  # at first, and where recurrent states cannot go back
            cache = cache_for(model, len(known))
            yield from _read(model, before, cache)
        clock, seconds = _Clock(), 0.0
        for part in _pieces(measured, model.spec.causal):
            with unnoticed(model), model.computing(partial(_clocked, clock=clock)):
                began = time.perf_counter()
                model.step([(part, cache)])
                seconds += time.perf_counter() - began
            yield
        cache.truncate(len(before))
        best = min((x for x in (best, (seconds, clock)) if x is not None), key=lambda x: x[0])
    assert best is not None
    seconds, clock = best
    found = _listed(clock, seconds)
    return Times(model.ops.name, model.activations, phase, len(measured), seconds, found)


def times(model: Model, ids: Sequence[int], phase: Phase = "prompt", repeat: int = 3) -> Times:
    """ids (T,): a text. phase: "prompt", all of it in passes of 64 tokens, or "token", its last token alone after the
    others. repeat: passes, of which the quickest counts; the first may repack weights."""
    return finished(times_steps(model, ids, phase, repeat))


def _pieces(ids: list[int], causal: bool) -> list[list[int]]:
    most = PIECE if causal else len(ids)
    return [ids[i : i + most] for i in range(0, len(ids), most)]


def _read(model: Model, ids: list[int], cache: Cache) -> Iterator[None]:
    """What comes before, unmeasured."""
    for part in _pieces(ids, model.spec.causal) if ids else ():
        with unnoticed(model):
            model.step([(part, cache)])
        yield


def _clocked(ops: Ops, clock: _Clock) -> Ops:
    """The operations with clocks around them, one by one: halves of layers that run in one call are taken apart."""
    ops = ops.composed()
    names = [field.name for field in fields(Ops) if callable(getattr(ops, field.name)) and field.name != "scope"]
    timed: dict[str, Any] = {name: clock.around(name, getattr(ops, name), ops.place) for name in names}
    return replace(ops, **timed)


def _listed(clock: _Clock, total: float) -> tuple[Operation, ...]:
    listed = [Operation(*key, int(calls), seconds) for key, (calls, seconds) in clock.spent.items()]
    listed.sort(key=lambda operation: -operation.seconds)
    rest = max(0.0, total - sum(operation.seconds for operation in listed))
    return (*listed, Operation(REST, "", "numpy", 1, rest))


def _is_compiled(function: Callable[..., Any]) -> bool:
    """Whether a callable of an `Ops` is one of the kernels': a method, a function, or either with arguments bound."""
    inner = getattr(function, "func", function)
    return str(getattr(inner, "__module__", "")).startswith(("ref_engine.kernels", "ref_engine.gpu"))


def _tensors(args: Sequence[Any]) -> str:
    """The kinds of the weights among the arguments of a call."""
    names = []
    for arg in args:
        if isinstance(arg, Weight):
            names.append(arg.name)
        elif isinstance(arg, Experts):
            names += [stack.weight.name for stack in (arg.gate, arg.up, arg.down) if stack is not None]
        elif isinstance(arg, list | tuple):
            names += [one[0].name for one in arg if isinstance(one, tuple) and one and isinstance(one[0], Weight)]
    return " ".join(_PLACE.sub("", _PLACE.sub("", name)) for name in names)
