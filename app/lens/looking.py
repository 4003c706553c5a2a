"""Looks at a loaded model, without being in anybody's way: in pieces, on the thread that owns it, between two steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ref_engine.errors import RefEngineError
from ref_engine.views import Shape, Steps, shape

from ..errors import ApiError
from ..library import Library
from ..logs import Log
from ..metrics import Metrics
from ..models import Lease, ModelPool
from ..prompt import make_prompt
from ..resident import Resident
from ..trouble import as_api_error
from .incoming import MAX_NUMBERS, MAX_TOKENS, Look

T = TypeVar("T")
_POLL = 0.05  # seconds between two looks whether a client is still there
_MAX_WAITING = 16


@dataclass(frozen=True)
class Seen:
    """What a look is at: the model, the text's ids, the wanted positions start .. stop - 1."""

    name: str
    lease: Lease
    shape: Shape
    ids: tuple[int, ...]
    start: int
    stop: int

    @property
    def resident(self) -> Resident:
        resident: Resident = self.lease.resident
        return resident

    @property
    def n(self) -> int:
        return self.stop - self.start

    def room_for(self, numbers: int) -> None:
        """Raises ApiError for an answer that would be too long."""
        if numbers > MAX_NUMBERS:
            few = "ask for fewer positions (start, stop)"
            raise ApiError("invalid", f"the answer would have {numbers} numbers, the limit is {MAX_NUMBERS}: {few}")


class Looking:
    """One look at a time, whatever the model: each holds a cache and what it has recorded."""

    def __init__(self, library: Library, pool: ModelPool, metrics: Metrics, log: Log) -> None:
        self._library = library
        self._pool = pool
        self._metrics = metrics
        self._log = log
        self._one = threading.Lock()
        self._waiting = 0
        self._count = threading.Lock()

    @contextmanager
    def at(self, look: Look, view: str, request_id: str, gone: Callable[[], bool]) -> Iterator[Seen]:
        """The model, leased for as long as the context is open. Raises ApiError."""
        began = time.perf_counter()
        found = self._library.find(look.model)
        lease = self._pool.lease(found.name, found.path, None, gone)
        try:
            resident = lease.resident
            ids: tuple[int, ...] = ()
            if look.text is not None:
                prompt = make_prompt(look.text, resident, found.own, resident.engine.n_ctx)
                self._log.text("lens", request_id=request_id, text=prompt.text)
                ids = prompt.ids
            start, stop = _window(ids, look, min(MAX_TOKENS, resident.engine.n_ctx)) if ids else (0, 0)
            yield Seen(look.model, lease, shape(resident.model), ids, start, stop)
        except RefEngineError as error:
            raise as_api_error(error) from error
        finally:
            lease.release()
            seconds = time.perf_counter() - began
            self._metrics.observe("ref_engine_lens_seconds", "Looking into a model", seconds, view=view)

    def run(self, seen: Seen, steps: Steps[T], gone: Callable[[], bool]) -> T:
        """What the steps come to, each taken on the engine's thread. Raises ApiError where the client leaves."""
        with self._turn(gone):
            while True:
                if gone():
                    steps.close()
                    raise ApiError("timeout", "the client has left")
                ended = seen.resident.engine.call(lambda: _advance(steps))
                if ended is not None:
                    return ended[0]

    @contextmanager
    def _turn(self, gone: Callable[[], bool]) -> Iterator[None]:
        with self._count:
            if self._waiting >= _MAX_WAITING:
                raise ApiError("overloaded", f"{self._waiting} requests wait to look already", retry_after=1)
            self._waiting += 1
        try:
            while not self._one.acquire(timeout=_POLL):
                if gone():
                    raise ApiError("timeout", "the client has left")
        finally:
            with self._count:
                self._waiting -= 1
        try:
            yield
        finally:
            self._one.release()


def _advance(steps: Steps[T]) -> tuple[T] | None:
    """The next step; what they all come to, if that was the last one."""
    try:
        next(steps)
    except StopIteration as end:
        return (end.value,)
    return None


def _window(ids: tuple[int, ...], look: Look, limit: int) -> tuple[int, int]:
    if len(ids) > limit:
        raise ApiError("invalid", f"the text has {len(ids)} tokens, the limit is {limit}")
    start, stop = look.start or 0, len(ids) if look.stop is None else look.stop
    if not start < stop <= len(ids):
        raise ApiError(
            "invalid", f"positions {start} to {stop} are not within the {len(ids)} tokens of the text", "start"
        )
    return start, stop
