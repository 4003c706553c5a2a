"""Slots: a sequence each, whose cache outlives its job, so that the next turn of a conversation is mostly there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic

from ref_engine.engine.job import Ticket
from ref_engine.generate import C, Continuation


@dataclass
class Work:
    """A job in its slot. `todo`: ids that are not in the cache yet; `limit`: tokens that the cache may hold for it."""

    ticket: Ticket
    text: Continuation
    todo: list[int]
    limit: int
    reading: bool = True  # the prompt is not in the cache yet


@dataclass
class Slot(Generic[C]):
    """`held`: the ids that the cache holds, cache.n_past of them. `used`: a count that orders slots by last use."""

    cache: C
    held: list[int] = field(default_factory=list)
    work: Work | None = None
    used: int = 0

    def forget(self, n: int) -> None:
        """All but the first n tokens."""
        self.cache.truncate(n)
        del self.held[n:]


def choose(slots: Sequence[Slot[C]], ids: Sequence[int]) -> tuple[Slot[C], int]:
    """The free slot for a prompt, and how many of its tokens the slot has. There must be a free one.

    The longest common prefix wins where less is given up for it than it saves; otherwise the slot that has not been
    used for longest. The last token of the prompt always runs, since its logits are needed.
    """
    free = [slot for slot in slots if slot.work is None]
    shared = {id(slot): min(common(slot.held, ids), len(ids) - 1) for slot in free}
    worth = [slot for slot in free if shared[id(slot)] > len(slot.held) - shared[id(slot)]]
    if worth:
        best = max(worth, key=lambda slot: (shared[id(slot)], -len(slot.held)))
    else:
        best = min(free, key=lambda slot: slot.used)
    return best, shared[id(best)]


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix of two lists, by halves: lists compare much faster than a loop does."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
