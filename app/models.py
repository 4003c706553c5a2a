"""Models in memory: loaded at first use, kept for a while, least recently used ones gone where there is no room.

A lease says that a request works with a model; a model without leases may go. What a model needs is known before it is
loaded, so the sum stays within the budget, and one that can never fit is refused with the numbers.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ref_engine.engine import Engine

from .errors import ApiError
from .malloc import give_back
from .memory import Need, gib
from .service import never

_POLL = 0.1  # seconds between two looks whether the client of a waiting request is still there


class Resident(Protocol):
    """A model that has been loaded, with whatever the pipeline wants beside it."""

    @property
    def engine(self) -> Engine[Any]: ...


@dataclass
class _Entry:
    """`resident` None: still loading. `unwanted`: it goes with its last lease.

    `expires`: when it goes if nobody asks, on the pool's clock.
    """

    path: Path
    name: str
    need: Need
    resident: Any = None
    leases: int = 0
    turn: int = 0
    unwanted: bool = False
    keep_alive: float = 0.0
    expires: float = math.inf


@dataclass(frozen=True)
class Running:
    """A model in memory. `expires_in`: seconds until it goes, from now; inf: it stays, or is at work."""

    name: str
    path: Path
    need: Need
    leases: int
    expires_in: float
    keep_alive: float


@dataclass
class Lease:
    """The right to use a model. `load_s`: seconds that this request waited for it to be loaded."""

    resident: Any
    need: Need
    load_s: float
    _give_back: Callable[[], None]
    _given: bool = field(default=False)

    def release(self) -> None:
        """Once is enough; again does nothing."""
        if not self._given:
            self._given = True
            self._give_back()


class ModelPool:
    """Every method may be called from any thread."""

    def __init__(
        self,
        load: Callable[[Path, Need], Resident],
        need: Callable[[Path], Need],
        *,
        budget: int,
        keep_alive: float,
        max_waiting: int = 64,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        """`told(event, **facts)` hears of models that come and go."""
        self.budget = budget
        self._load = load
        self._need = need
        self._keep_alive = keep_alive
        self._max_waiting = max_waiting
        self._clock = clock
        self._told = told
        self._changed = threading.Condition()
        self._entries: dict[Path, _Entry] = {}
        self._turn = 0
        self._waiting = 0
        self._stopping = False
        self._reaper = threading.Thread(target=self._reap, name="keep-alive", daemon=True)
        self._reaper.start()

    # -- using

    def lease(self, name: str, path: Path, keep_alive: float | None = None, gone: Callable[[], bool] = never) -> Lease:
        """The model of a file, loaded now if need be. `name` is for lists and errors.

        Raises ApiError: "unsupported" for a file that cannot be run or will never fit, "overloaded" where others are
        at work in the memory that it needs and too many wait already, or the server stops.
        """
        began = self._clock()
        keep_alive = self._keep_alive if keep_alive is None else keep_alive
        entry = self._ready(path)
        if entry is None:
            entry, leaving = self._place(name, path, self._fitting(name, path), gone)
            for old in leaving:
                self._close(old, "made room")
            if entry.resident is None:
                self._fill(entry)
        resident = entry.resident
        assert resident is not None
        return Lease(resident, entry.need, self._clock() - began, lambda: self._release(entry, keep_alive))

    def _ready(self, path: Path) -> _Entry | None:
        """The entry with one more lease, if the model is there."""
        with self._changed:
            entry = self._entries.get(path)
            if self._stopping or entry is None or entry.resident is None:
                return None
            return self._leased(entry)

    def _leased(self, entry: _Entry) -> _Entry:
        self._turn += 1
        entry.leases, entry.turn, entry.unwanted = entry.leases + 1, self._turn, False
        return entry

    def _fitting(self, name: str, path: Path) -> Need:
        need = self._need(path)
        if need.total > self.budget:
            raise ApiError(
                "unsupported",
                f"model {name} needs {gib(need.total)} of memory ({gib(need.weights)} of weights, {gib(need.caches)} "
                f"for {need.n_ctx} tokens in every slot), and models may take {gib(self.budget)}",
                "model",
            )
        return need

    def _place(self, name: str, path: Path, need: Need, gone: Callable[[], bool]) -> tuple[_Entry, list[_Entry]]:
        """A leased entry: one that is there by now, or a new one to be filled, and those that leave for it."""
        with self._changed:
            if self._waiting >= self._max_waiting:
                raise ApiError("overloaded", f"{self._waiting} requests wait for memory already", retry_after=5)
            self._waiting += 1
            try:
                while True:
                    if self._stopping:
                        raise ApiError("overloaded", "the server is shutting down", retry_after=5)
                    entry = self._entries.get(path)
                    if entry is not None and entry.resident is not None:
                        return self._leased(entry), []
                    leaving = self._leaving(need.total) if entry is None else None
                    if leaving is not None:
                        for old in leaving:
                            del self._entries[old.path]
                        self._entries[path] = _Entry(path, name, need)
                        return self._leased(self._entries[path]), leaving
                    self._changed.wait(_POLL)
                    if gone():
                        raise ApiError("timeout", "the client has left")
            finally:
                self._waiting -= 1

    def _leaving(self, nbytes: int) -> list[_Entry] | None:
        """Those that must go for so many bytes, least recently used first; None where they are at work."""
        used = sum(entry.need.total for entry in self._entries.values())
        leaving = []
        for entry in sorted(self._entries.values(), key=lambda entry: entry.turn):
            if used + nbytes <= self.budget:
                break
            if not entry.leases:
                leaving.append(entry)
                used -= entry.need.total
        return leaving if used + nbytes <= self.budget else None

    def _fill(self, entry: _Entry) -> None:
        began = self._clock()
        try:
            resident = self._load(entry.path, entry.need)
        except BaseException:
            with self._changed:
                del self._entries[entry.path]
                self._changed.notify_all()
            raise
        with self._changed:
            entry.resident = resident
            self._changed.notify_all()
        self._told("loaded", model=entry.name, bytes=entry.need.total, seconds=round(self._clock() - began, 3))

    def _release(self, entry: _Entry, keep_alive: float) -> None:
        with self._changed:
            entry.leases -= 1
            entry.keep_alive = keep_alive
            entry.expires = self._clock() + (0.0 if entry.unwanted else keep_alive)
            self._changed.notify_all()

    # -- looking, and letting go

    def running(self) -> list[Running]:
        """What is in memory, most recently used first."""
        with self._changed:
            now = self._clock()
            return [
                Running(
                    entry.name,
                    entry.path,
                    entry.need,
                    entry.leases,
                    math.inf if entry.leases else max(0.0, entry.expires - now),
                    entry.keep_alive,
                )
                for entry in sorted(self._entries.values(), key=lambda entry: -entry.turn)
                if entry.resident is not None
            ]

    def residents(self) -> list[tuple[str, Any]]:
        """Names and models in memory."""
        with self._changed:
            return [(entry.name, entry.resident) for entry in self._entries.values() if entry.resident is not None]

    def unload(self, path: Path) -> bool:
        """Let a model go as soon as nobody works with it. Whether it was there."""
        with self._changed:
            entry = self._entries.get(path)
            if entry is None:
                return False
            entry.unwanted = True
            entry.expires = self._clock()
            self._changed.notify_all()
            return True

    def stop(self, grace: float = 0.0) -> None:
        """Let everything go. Answers under way have `grace` seconds to end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            entries = [entry for entry in self._entries.values() if entry.resident is not None]
        threads = [threading.Thread(target=entry.resident.engine.stop, args=(grace,)) for entry in entries]
        for thread in threads:
            thread.start()
        for thread in [*threads, self._reaper]:
            thread.join()

    def _reap(self) -> None:
        """Let go of those whose time has come."""
        while True:
            with self._changed:
                if self._stopping:
                    return
                now = self._clock()
                idle = [entry for entry in self._entries.values() if entry.resident is not None and not entry.leases]
                expired = [entry for entry in idle if entry.expires <= now]
                for entry in expired:
                    del self._entries[entry.path]
                if not expired:
                    soonest = min((entry.expires for entry in idle), default=math.inf)
                    self._changed.wait(None if soonest == math.inf else min(soonest - now, 3600.0))
            for entry in expired:
                self._close(entry, "expired")
            if expired:
                with self._changed:
                    self._changed.notify_all()

    def _close(self, entry: _Entry, why: str) -> None:
        entry.resident.engine.stop()
        entry.resident = None
        give_back()
        self._told("unloaded", model=entry.name, why=why)
