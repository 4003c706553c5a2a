"""Jobs that wait: each client's in their order, clients in turn, so that one with many does not keep out the others."""

from __future__ import annotations

from collections import deque

from ref_engine.engine.job import QueueFull
from ref_engine.engine.slots import Work


class FairQueue:
    """Not safe for several threads: its owner holds a lock."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Work]] = {}  # in the order in which clients have their turn

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def push(self, work: Work, limit: int) -> None:
        """Raises QueueFull where `limit` wait already; jobs that have been cancelled do not count."""
        if len(self) >= limit:
            self._drop_cancelled()
        if len(self) >= limit:
            raise QueueFull(f"{len(self)} requests wait already")
        self._lines.setdefault(work.ticket.job.client, deque()).append(work)

    def pop(self) -> Work | None:
        """The next job of the client whose turn it is; None where nobody waits. Cancelled ones are ended on the way."""
        while self._lines:
            client, line = next(iter(self._lines.items()))
            work = line.popleft()
            del self._lines[client]
            if line:
                self._lines[client] = line  # behind the others
            if not work.ticket.cancelled:
                return work
            work.ticket.end()
        return None

    def clear(self) -> list[Work]:
        """Everyone who waits, who then waits no more."""
        waiting = [work for line in self._lines.values() for work in line]
        self._lines.clear()
        return waiting

    def _drop_cancelled(self) -> None:
        for client, line in list(self._lines.items()):
            left = deque(work for work in line if not work.ticket.cancelled)
            for work in line:
                if work.ticket.cancelled:
                    work.ticket.end()
            if left:
                self._lines[client] = left
            else:
                del self._lines[client]
