"""Slots: a sequence each, whose cache outlives its job, so that the next turn of a conversation is mostly there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

from ref_engine.engine.job import Ticket
from ref_engine.generate import Cache, Continuation

WORTH_WAITING = 16  # tokens of a prompt that another sequence is about to read, too


class SharedCache(Cache, Protocol):
    """A cache that can copy the beginning of another one."""

    def take(self, other: Self, n: int, /) -> None: ...


C = TypeVar("C", bound=SharedCache)


@dataclass
class Work:
    """A job in its slot. `todo`: ids that are not in the cache yet; `limit`: tokens that the cache may hold for it.

    `begun`: it is known what of the prompt need not be read; until then `todo` is all of it.
    """

    ticket: Ticket
    text: Continuation
    todo: list[int]
    limit: int
    begun: bool = False
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


def choose(slots: Sequence[Slot[C]], ids: Sequence[int]) -> Slot[C]:
    """The free slot for a prompt. There must be a free one.

    The longest common prefix wins where less is given up for it than it saves; otherwise the slot that has not been
    used for longest.
    """
    free = [slot for slot in slots if slot.work is None]
    saved = {id(slot): shared(slot.held, ids) for slot in free}
    worth = [slot for slot in free if saved[id(slot)] > len(slot.held) - saved[id(slot)]]
    if worth:
        return max(worth, key=lambda slot: (saved[id(slot)], -len(slot.held)))
    return min(free, key=lambda slot: slot.used)


def begin(slot: Slot[C], slots: Sequence[Slot[C]]) -> int | None:
    """Give a slot what any of the slots has of its job's prompt; the number of those tokens.

    None where another sequence is about to read more of the same prompt: it pays to wait for that.
    """
    work = slot.work
    assert work is not None
    others = [other for other in slots if other is not slot]
    own = shared(slot.held, work.todo)
    donor = max(others, key=lambda other: shared(other.held, work.todo), default=None)
    most = own if donor is None else max(own, shared(donor.held, work.todo))
    reading = [other for other in others if other.work is not None and other.work.begun and other.work.reading]
    for other in reading:
        assert other.work is not None
        if shared([*other.held, *other.work.todo], work.todo) >= most + WORTH_WAITING:
            return None
    if donor is not None and most > own:
        slot.cache.take(donor.cache, most)
        slot.held = donor.held[:most]
    else:
        slot.forget(own)
    del work.todo[:most]
    work.begun = True
    return most


def shared(held: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens of a prompt need not run where these are in a cache. Its last one must: its logits are needed."""
    return min(common(held, ids), len(ids) - 1)


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
