"""Long work on the store as lines of progress: done on a thread of its own, told by a generator."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ref_engine.errors import RefEngineError
from ref_engine.library.progress import Progress

from .trouble import as_api_error

_BETWEEN = 0.1  # seconds between two lines of one step


class Left(RefEngineError):
    """Whoever wanted the work done has left."""


class _Lines:
    """A `Progress` that writes lines for another thread to take, and ends the work once nobody takes them."""

    def __init__(self) -> None:
        self.lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.left = threading.Event()
        self._label = ""
        self._total: int | None = None
        self._n = 0
        self._last = 0.0

    def start(self, total: int | None, label: str) -> None:
        self._label, self._total, self._n, self._last = label, total, 0, time.monotonic()
        self._say()

    def advance(self, n: int) -> None:
        if self.left.is_set():
            raise Left("given up")
        self._n += n
        now = time.monotonic()
        if now - self._last >= _BETWEEN:
            self._last = now
            self._say()

    def done(self) -> None:
        if self._total:
            self._n = self._total if self._n >= self._total else self._n
            self._say()
        self._total = None

    def _say(self) -> None:
        line: dict[str, Any] = {"status": self._label}
        if self._total is not None:
            line |= {"total": self._total, "completed": self._n}
        self.lines.put(line)


def job_lines(first: str, work: Callable[[Progress], None], gone: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Lines of progress of a piece of work; the last is {"status": "success"}, or {"error": what went wrong}.

    The work ends early where the client leaves; what a download has by then is kept for the next one.
    """
    progress = _Lines()

    def run() -> None:
        try:
            work(progress)
            progress.lines.put({"status": "success"})
        except Exception as error:  # noqa: BLE001 - it is told in the stream, which has begun
            progress.lines.put({"error": as_api_error(error).message})
        progress.lines.put(None)

    thread = threading.Thread(target=run, name=first, daemon=True)
    thread.start()
    try:
        yield {"status": first}
        while True:
            try:
                line = progress.lines.get(timeout=_BETWEEN)
            except queue.Empty:
                if gone():
                    return
                continue
            if line is None:
                return
            yield line
    finally:
        progress.left.set()
