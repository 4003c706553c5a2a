"""One thread that owns a model. Each step is one pass over the weights for every sequence that has something to do.

    engine = Engine(model, parallel=4)
    ticket = engine.submit(Job(ids=tuple(model.tokenize("Once upon a time")), max_tokens=32))
    text = "".join(event.text for event in ticket)

A sequence that generates brings one token to a step; prompts share what is left of it, the oldest first, in pieces
that take a fraction of a second, so that nobody waits long behind a long prompt, and a job that is cancelled has left
by the next step. What another sequence has of a prompt, or is about to have, is copied from there. What a sequence
says depends on nothing but itself: in q8 mode a pass gives the same bits whoever is in it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from ref_engine.engine.job import EngineStopped, Job, Ticket, never
from ref_engine.engine.slots import C, Slot, Work, begin, choose
from ref_engine.engine.waiting import FairQueue
from ref_engine.errors import ContextFull, RefEngineError
from ref_engine.generate import Continuation, Tokenizer, checked_prompt, new_sampler
from ref_engine.reference.sums import F32

T = TypeVar("T")
_PIECE = (16, 512)  # tokens of a prompt in one step: least, most
_FIRST_RATE = 512.0  # tokens of prompts per second, before any has been read
_ALONE_S, _SHARED_S = 0.25, 0.1  # seconds that a piece of a prompt may take: with nobody waiting, or with somebody,
_STEPS = 3.0  # or as long as so many of the quickest steps: every step streams all weights, however few its tokens


class BatchModel(Protocol[C]):
    """All that the engine needs of a model. `step` appends ids to sequences of their own and gives each one's last
    logits (V,)."""

    @property
    def tokenizer(self) -> Tokenizer: ...
    def new_cache(self, n_ctx: int | None = None, /) -> C: ...
    def step(self, batch: Sequence[tuple[Sequence[int], C]], /) -> Sequence[F32]: ...


@dataclass(frozen=True)
class Load:
    """What an engine is doing: jobs in slots, jobs that wait, tokens that the slots hold."""

    active: int
    waiting: int
    cached_tokens: int


class Engine(Generic[C]):
    """Jobs in, events out. Every method may be called from any thread; only the engine's own touches the model."""

    def __init__(
        self, model: BatchModel[C], *, parallel: int = 4, n_ctx: int, max_queue: int = 64, name: str = "engine"
    ) -> None:
        """parallel: sequences at once. n_ctx: tokens of each. max_queue: jobs that may wait besides."""
        if parallel < 1 or n_ctx < 1 or max_queue < 0:
            raise RefEngineError(f"an engine cannot have parallel {parallel}, n_ctx {n_ctx}, max_queue {max_queue}")
        self.n_ctx = n_ctx
        self.parallel = parallel
        self.max_queue = max_queue
        self._model = model
        self._tokenizer = model.tokenizer
        self._slots = [Slot(model.new_cache(n_ctx)) for _ in range(parallel)]
        self._queue = FairQueue()
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._deadline = math.inf
        self._turn = 0
        self._rate = _FIRST_RATE
        self._quickest = math.inf  # seconds of a step
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # -- from any thread

    def submit(self, job: Job, gone: Callable[[], bool] = never) -> Ticket:
        """Checks the job and queues it; it is cancelled when `gone` says so. Raises ContextFull, QueueFull,
        EngineStopped, or RefEngineError for an argument out of range."""
        ids = checked_prompt(job.ids, self._tokenizer.n_vocab)
        limit = self.n_ctx if job.n_ctx is None else min(job.n_ctx, self.n_ctx)
        if len(ids) > limit:
            raise ContextFull(f"the prompt has {len(ids)} tokens, the context {limit}")
        work = Work(Ticket(job, gone), self._continuation(job), ids, limit)
        with self._wake:
            self._check_running()
            self._queue.push(work, self.max_queue + self.parallel - self._n_active())
            self._wake.notify()
        return work.ticket

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the engine's thread, between two steps, and return what it returns. Raises what it raises,
        and EngineStopped."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller, who waits for it
                future.set_exception(error)

        with self._wake:
            self._check_running()
            self._calls.append(run)
            self._wake.notify()
        return future.result()

    def load(self) -> Load:
        with self._wake:
            held = sum(len(slot.held) for slot in self._slots)
            return Load(self._n_active(), len(self._queue), held)

    def stop(self, grace: float = 0.0) -> None:
        """Take no more jobs, refuse those that wait, give those in slots `grace` seconds to end, and wait until the
        thread has. What is not done by then ends with EngineStopped."""
        with self._wake:
            self._stopping = True
            self._deadline = min(self._deadline, time.monotonic() + grace)
            for work in self._queue.clear():
                work.ticket.end(EngineStopped("the server is shutting down"))
            self._wake.notify()
        self._thread.join()

    def _check_running(self) -> None:
        if self._stopping:
            raise EngineStopped("the server is shutting down")

    def _n_active(self) -> int:
        return sum(slot.work is not None for slot in self._slots)

    def _continuation(self, job: Job) -> Continuation:
        params = replace(job.params, ignore_eos=job.params.ignore_eos or job.ignore_eos)
        sampler = new_sampler(self._tokenizer, params, job.logprobs)
        sampler.accept(job.ids)
        return Continuation(
            self._tokenizer,
            sampler,
            max_tokens=job.max_tokens,
            stop=job.stop,
            special=job.special,
            constraint=job.constraint,
            thinking=job.thinking,
        )

    # -- on the engine's thread

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._stopping or self._calls or len(self._queue) or self._n_active()):
                    self._wake.wait()
                self._admit()
                calls = list(self._calls)
                self._calls.clear()
                if self._stopping and not self._n_active() and not calls:
                    return
            for call in calls:
                call()
            if time.monotonic() >= self._deadline:
                self._end_all(EngineStopped("the server is shutting down"))
            self._step()

    def _admit(self) -> None:
        """Put those who wait into free slots."""
        while len(self._queue) and self._n_active() < self.parallel:
            work = self._queue.pop()
            if work is None:
                return
            slot = choose(self._slots, work.todo)
            self._turn += 1
            slot.work, slot.used = work, self._turn

    def _step(self) -> None:
        for slot in self._slots:
            if slot.work is not None and slot.work.ticket.cancelled:
                self._free(slot)
        for slot in sorted(self._slots, key=lambda slot: slot.used):
            if slot.work is not None and not slot.work.begun and (n := begin(slot, self._slots)) is not None:
                slot.work.ticket.start(cached_tokens=n)
        batch = self._batch()
        if not batch:
            return
        began = time.perf_counter()
        try:
            logits = self._model.step([(ids, slot.cache) for slot, ids in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for it must hear of it
            self._end_all(error)
            return
        self._measure(sum(len(ids) for _, ids in batch), len(batch), time.perf_counter() - began)
        for (slot, ids), row in zip(batch, logits, strict=True):
            self._advance(slot, ids, row)

    def _batch(self) -> list[tuple[Slot[C], list[int]]]:
        """What each sequence brings to the next step: a generated token, or a piece of its prompt."""
        busy = sorted((slot for slot in self._slots if slot.work and slot.work.begun), key=lambda slot: slot.used)
        seconds = _ALONE_S if len(busy) == 1 else _SHARED_S
        if self._quickest < math.inf:
            seconds = max(seconds, _STEPS * self._quickest)
        room = min(max(int(self._rate * seconds), _PIECE[0]), _PIECE[1])
        batch = []
        for slot in busy:
            assert slot.work is not None
            n = min(len(slot.work.todo), room) if slot.work.reading else 1
            room -= n if slot.work.reading else 0
            if n:
                batch.append((slot, slot.work.todo[:n]))
        return batch

    def _measure(self, n_tokens: int, n_sequences: int, seconds: float) -> None:
        """Learn how long a step takes, and how fast prompts are read from steps that are mostly that."""
        self._quickest = min(self._quickest, seconds)
        if n_tokens >= 2 * n_sequences and n_tokens >= _PIECE[0]:
            self._rate = n_tokens / max(seconds, 1e-6)

    def _advance(self, slot: Slot[C], ids: list[int], logits: F32) -> None:
        """`ids` are in the slot's cache now; where the prompt is, the next token comes out."""
        work = slot.work
        assert work is not None
        slot.held += ids
        del work.todo[: len(ids)]
        if work.todo:
            return
        work.reading = False
        try:
            event = work.text.next(logits, room=work.limit - slot.cache.n_past)
        except Exception as error:  # noqa: BLE001 - of a grammar or a sampler: it is this job's alone
            self._free(slot, error)
            return
        work.ticket.put(event, work.text.was_thinking)
        if event.finish_reason is not None or event.token is None:
            self._free(slot)
        else:
            work.todo.append(event.token)

    def _free(self, slot: Slot[C], error: Exception | None = None) -> None:
        """The job has ended; what the cache holds stays for the next one."""
        work = slot.work
        assert work is not None
        with self._wake:
            slot.work = None
        work.ticket.end(error)

    def _end_all(self, error: Exception) -> None:
        """Every job ends with this error. Caches go back to what they are known to hold."""
        for slot in self._slots:
            if slot.work is not None:
                if slot.cache.n_past > len(slot.held):
                    slot.cache.truncate(len(slot.held))
                self._free(slot, error)
