"""What the engine is asked to do, and what it hands out for it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

from ref_engine.errors import RefEngineError
from ref_engine.generate import Event
from ref_engine.sample import Constraint, SamplingParams
from ref_engine.thinking import ThinkingRule


@dataclass(frozen=True)
class Job:
    """One text to generate.

    ids           the prompt, token ids, at least one
    max_tokens    None: until the model ends its text or the context is full. 0: only the prompt is computed
    stop          strings; the text ends before the first of them
    logprobs      how many alternatives each event names
    ignore_eos    never choose an end-of-generation token
    constraint    what the text may be, made for this job alone (it has a state); it waits while thinking is open
    thinking      how thinking begins and ends, and after how many tokens it is made to end
    special       control tokens to show in the text (tool formats have tags among them): all, none, or these ids
    n_ctx         tokens of prompt and text at most, where that is less than the engine's
    client        whose turn it is when several wait: each client's jobs in order, clients in turn
    """

    ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int = 0
    ignore_eos: bool = False
    constraint: Constraint | None = None
    thinking: ThinkingRule | None = None
    special: bool | Collection[int] = False
    n_ctx: int | None = None
    client: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens; `cached_tokens` of the prompt were in the slot and have not been computed again."""

    prompt_tokens: int
    cached_tokens: int = 0
    completion_tokens: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True)
class Timings:
    """Seconds in the queue, with the prompt, and with the text after its first token."""

    queued_s: float = 0.0
    prompt_s: float = 0.0
    decode_s: float = 0.0


class QueueFull(RefEngineError):
    """As many jobs wait as may."""


class EngineStopped(RefEngineError):
    """The engine is shutting down, or has failed."""


@dataclass(frozen=True)
class _End:
    """What follows the last event; `error` is raised to whoever iterates."""

    error: Exception | None = None


def never() -> bool:
    return False


class Ticket:
    """A job on its way: iterate over it for `ref_engine.generate.Event`s. For one reader; the engine writes.

    gone: whether nobody waits for it any more; asked between steps, on the engine's thread.

    Iteration ends after the event with a finish_reason, or without one where the job was cancelled. It raises what
    went wrong: EngineStopped, or the RefEngineError of a sampler.
    """

    def __init__(
        self, job: Job, gone: Callable[[], bool] = never, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.job = job
        self._gone = gone
        self._clock = clock
        self._events: queue.SimpleQueue[Event | _End] = queue.SimpleQueue()
        self._started = threading.Event()
        self._cancelled = threading.Event()
        self._ended: _End | None = None
        self._usage = Usage(len(job.ids))
        self._timings = Timings()
        self._since = clock()

    # -- the reader's side

    def wait_started(self, timeout: float | None = None) -> bool:
        """Until the job has a slot and `usage.cached_tokens` is known (or it has ended); False after `timeout`."""
        return self._started.wait(timeout)

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event, or None where there is no more. Raises queue.Empty after `timeout` seconds."""
        if self._ended is None:
            item = self._events.get(timeout=timeout)
            if isinstance(item, Event):
                return item
            self._ended = item
        if self._ended.error is not None:
            raise self._ended.error
        return None

    def __iter__(self) -> Iterator[Event]:
        while (event := self.next()) is not None:
            yield event

    def cancel(self) -> None:
        """End the job; its slot is free within one token. No harm where it has ended already."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set() or self._gone()

    @property
    def usage(self) -> Usage:
        return self._usage

    @property
    def timings(self) -> Timings:
        return self._timings

    # -- the engine's side

    def start(self, cached_tokens: int) -> None:
        now = self._clock()
        self._usage = replace(self._usage, cached_tokens=cached_tokens)
        self._timings = replace(self._timings, queued_s=now - self._since)
        self._since = now
        self._started.set()

    def put(self, event: Event, thinking: bool = False) -> None:
        """Hand an event out. `thinking`: its token was one of thinking."""
        now, usage = self._clock(), self._usage
        if usage.completion_tokens == 0:
            self._timings = replace(self._timings, prompt_s=now - self._since)
            self._since = now
        else:
            self._timings = replace(self._timings, decode_s=now - self._since)
        n = 0 if event.token is None else 1
        self._usage = replace(
            usage,
            completion_tokens=usage.completion_tokens + n,
            thinking_tokens=usage.thinking_tokens + n * thinking,
        )
        self._events.put(event)

    def end(self, error: Exception | None = None) -> None:
        self._events.put(_End(error))
        self._started.set()
