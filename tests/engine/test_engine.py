"""The engine on a model that is a checksum (toy.py), and on a real one against the loop of a single sequence."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from toy import LETTERS, N_VOCAB, Model, answer

import ref_engine
from ref_engine.engine import Engine, EngineStopped, Job, QueueFull, Ticket
from ref_engine.errors import ContextFull, RefEngineError
from ref_engine.sample import GREEDY
from ref_engine.thinking import ThinkingRule

Start = Callable[..., Engine[Any]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Engines that are stopped after the test, whatever becomes of it."""
    engines: list[tuple[Engine[Any], Model]] = []

    def begin(model: Model, *, parallel: int = 4, n_ctx: int = 200, max_queue: int = 64) -> Engine[Any]:
        engine = Engine(model, parallel=parallel, n_ctx=n_ctx, max_queue=max_queue)
        engines.append((engine, model))
        return engine

    yield begin
    for engine, model in engines:
        if model._gate is not None:
            model.open(10_000)
        engine.stop()


def job(*ids: int, n: int | None = 5, **options: Any) -> Job:
    return Job(ids, GREEDY, max_tokens=n, **options)


def tokens(ticket: Ticket) -> list[int]:
    return [event.token for event in ticket if event.token is not None]


# --- what comes out ---------------------------------------------------------------------------------------


def test_nobody_hears_the_others(start: Start) -> None:
    engine = start(Model())
    prompts = [tuple((7 * i + j * j) % 31 + 1 for j in range(1 + 3 * i)) for i in range(12)]
    tickets = [engine.submit(job(*prompt, n=3 + i)) for i, prompt in enumerate(prompts)]
    for i, (prompt, ticket) in enumerate(zip(prompts, tickets, strict=True)):
        events = list(ticket)
        assert [event.token for event in events] == answer(prompt, 3 + i)
        assert "".join(event.text for event in events) == "".join(LETTERS[t] for t in answer(prompt, 3 + i))
        assert [event.finish_reason for event in events] == [None] * (2 + i) + ["length"]
        assert (ticket.usage.prompt_tokens, ticket.usage.completion_tokens) == (len(prompt), 3 + i)


def test_all_sequences_share_a_step(start: Start) -> None:
    model = Model(gated=True)
    engine = start(model)
    tickets = [engine.submit(job(n, n=4)) for n in (1, 2, 3, 4)]
    model.wait_begun()  # the first step may have begun with the first of them
    model.open(10)
    assert [tokens(ticket) for ticket in tickets] == [answer([n], 4) for n in (1, 2, 3, 4)]
    assert max(len(step) for step in model.steps) == 4
    assert len(model.steps) <= 8  # 16 tokens one by one would take 16


def test_no_tokens_wanted(start: Start) -> None:
    ticket = start(Model()).submit(job(1, 2, n=0))
    assert [(event.token, event.finish_reason) for event in ticket] == [(None, "length")]
    assert (ticket.usage.prompt_tokens, ticket.usage.completion_tokens) == (2, 0)


def test_until_the_context_is_full(start: Start) -> None:
    engine = start(Model(), n_ctx=10)
    assert tokens(engine.submit(job(*range(1, 8), n=None))) == answer(range(1, 8), 4)  # 7 + 3 fit, and one is not kept
    assert tokens(engine.submit(job(1, 2, 3, n=None, n_ctx=4))) == answer([1, 2, 3], 2)
    with pytest.raises(ContextFull, match="the prompt has 11 tokens, the context 10"):
        engine.submit(job(*range(1, 12)))
    with pytest.raises(ContextFull, match="the prompt has 5 tokens, the context 4"):
        engine.submit(job(*range(1, 6), n_ctx=4))


@pytest.mark.parametrize("ids", [(), (N_VOCAB,), (-1,)])
def test_prompts_that_are_none(start: Start, ids: tuple[int, ...]) -> None:
    with pytest.raises(RefEngineError, match="prompt"):
        start(Model()).submit(job(*ids))


# --- what is computed -------------------------------------------------------------------------------------


def test_next_turn_reads_only_what_is_new(start: Start) -> None:
    model = Model()
    engine = start(model)
    first = engine.submit(job(1, 2, 3, n=3))
    said = tokens(first)
    assert first.usage.cached_tokens == 0
    n_steps = len(model.steps)
    second = engine.submit(job(1, 2, 3, *said, 9, 9, n=2))
    assert tokens(second) == answer([1, 2, 3, *said, 9, 9], 2)
    assert second.usage.cached_tokens == 5  # three of the prompt and two of the answer; its last was never needed
    assert model.steps[n_steps] == [[said[-1], 9, 9]]


def test_same_prompt_again_runs_its_last_token(start: Start) -> None:
    model = Model()
    engine = start(model)
    tokens(engine.submit(job(1, 2, 3, n=1)))
    again = engine.submit(job(1, 2, 3, n=1))
    assert tokens(again) == answer([1, 2, 3], 1)
    assert again.usage.cached_tokens == 2
    assert model.steps[-1] == [[3]]


def test_a_short_common_beginning_does_not_take_a_long_conversation(start: Start) -> None:
    model = Model()
    engine = start(model, parallel=2)
    long = tuple(range(1, 31))
    tokens(engine.submit(job(*long, n=1)))
    other = engine.submit(job(1, 2, 20, n=1))  # shares two tokens with the slot that holds thirty, and copies them
    assert tokens(other) == answer([1, 2, 20], 1)
    assert other.usage.cached_tokens == 2
    back = engine.submit(job(*long, 5, n=1))
    assert tokens(back) == answer([*long, 5], 1)
    assert back.usage.cached_tokens == 30


def test_one_prompt_for_several_answers_is_read_once(start: Start) -> None:
    """Those that come while it is being read wait for that, and copy it; so does one that comes later."""
    model = Model(gated=True)
    engine = start(model, parallel=4, n_ctx=3000)
    prompt = tuple(1 + (i * i) % 31 for i in range(700))  # two pieces
    tickets = [engine.submit(job(*prompt, n=4, client=str(i))) for i in range(3)]
    model.wait_begun()
    model.open(1)
    model.wait_begun()  # the second piece: nobody else has begun
    assert [len(step) for step in model.steps] == [1, 1] and not tickets[1].wait_started(0)
    model.open(20)
    assert [tokens(ticket) for ticket in tickets] == [answer(prompt, 4)] * 3
    late = engine.submit(job(*prompt, 5, n=2))
    model.open(20)
    assert tokens(late) == answer([*prompt, 5], 2)
    assert sum(len(ids) for step in model.steps for ids in step if len(ids) > 1) == 700
    assert [ticket.usage.cached_tokens for ticket in (*tickets, late)] == [0, 699, 699, 700]


def test_who_waits_for_a_prompt_reads_it_where_the_reader_leaves(start: Start) -> None:
    model = Model(gated=True)
    engine = start(model, parallel=2, n_ctx=3000)
    prompt = tuple(1 + (i * i) % 31 for i in range(700))
    first, second = engine.submit(job(*prompt, n=1)), engine.submit(job(*prompt[:690], 7, n=1))
    model.wait_begun()
    first.cancel()
    model.open(20)
    assert tokens(second) == answer([*prompt[:690], 7], 1)
    assert 0 < second.usage.cached_tokens < 690  # the piece that was read before
    assert tokens(first) == []


def test_least_recently_used_slot_goes_first(start: Start) -> None:
    engine = start(Model(), parallel=2)
    for first in (10, 20, 10, 30):  # 30 finds nothing and takes the place of 20
        tokens(engine.submit(job(first, 1, 2, n=1)))
    kept = engine.submit(job(10, 1, 2, n=1))
    assert tokens(kept) == answer([10, 1, 2], 1)
    gone = engine.submit(job(20, 1, 2, n=1))
    assert tokens(gone) == answer([20, 1, 2], 1)
    assert (kept.usage.cached_tokens, gone.usage.cached_tokens) == (2, 0)


def test_long_prompts_come_in_pieces_and_hold_nobody_up(start: Start) -> None:
    model = Model(gated=True)
    engine = start(model, n_ctx=3000)
    talker = engine.submit(job(1, n=60))
    model.wait_begun()
    long = tuple(1 + i % 31 for i in range(2000))
    reader = engine.submit(job(*long, n=1))
    model.open(100)
    assert tokens(reader) == answer(long, 1)
    assert tokens(talker) == answer([1], 60)
    reading = [step for step in model.steps if any(len(ids) > 1 for ids in step)]
    assert len(reading) >= 4  # 512 tokens at most
    assert max(len(ids) for step in reading for ids in step) <= 512
    together = [step for step in model.steps[:60] if len(step) == 2]
    assert together and all(step[0] and len(step[0]) == 1 for step in together)  # the talker spoke in every one


# --- whose turn it is -------------------------------------------------------------------------------------


def test_clients_in_turn(start: Start) -> None:
    model = Model(gated=True)
    engine = start(model, parallel=1)
    tickets = [engine.submit(job(9, n=1, client="a"))]
    model.wait_begun()
    wanted = [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)]
    tickets += [engine.submit(job(first, n=1, client=client)) for client, first in wanted]
    model.open(20)
    for ticket in tickets:
        tokens(ticket)
    assert [step[0][0] for step in model.steps] == [9, 1, 4, 5, 2, 6, 3]


def test_queue_limit(start: Start) -> None:
    model = Model(gated=True)
    engine = start(model, parallel=1, max_queue=2)
    running = engine.submit(job(1, n=1))
    model.wait_begun()
    waiting = [engine.submit(job(2, n=1)), engine.submit(job(3, n=1))]
    with pytest.raises(QueueFull, match="2 requests wait already"):
        engine.submit(job(4, n=1))
    waiting[0].cancel()  # whoever has left makes room
    late = engine.submit(job(5, n=1))
    assert engine.load().waiting == 2
    model.open(20)
    assert [tokens(ticket) for ticket in (running, waiting[0], waiting[1], late)] == [
        answer([1], 1),
        [],
        answer([3], 1),
        answer([5], 1),
    ]


@pytest.mark.parametrize("by", ["the reader", "the engine, which asks whether anybody is there"])
def test_cancelled_jobs_leave_within_a_token(start: Start, by: str) -> None:
    model, gone = Model(gated=True), threading.Event()
    engine = start(model, parallel=2)
    staying, leaving = engine.submit(job(1, n=30)), engine.submit(job(2, n=30), gone.is_set)
    waiting = engine.submit(job(3, n=2))
    model.open(5)
    model.wait_begun(6)  # the sixth step is at the gate
    assert not waiting.wait_started(0)
    leaving.cancel() if by == "the reader" else gone.set()
    model.open(2)
    model.wait_begun(2)
    assert waiting.wait_started(30)
    assert len(tokens(leaving)) <= 6  # five, and the one of the step that was under way
    model.open(100)
    assert tokens(waiting) == answer([3], 2)
    assert tokens(staying) == answer([1], 30)
    assert all(step[-1] != [2] or len(step) <= 2 for step in model.steps)


def test_cancel_while_the_prompt_is_read(start: Start) -> None:
    model = Model(gated=True)
    engine = start(model, n_ctx=5000)
    ticket = engine.submit(job(*(1 + i % 31 for i in range(4000))))
    model.wait_begun()
    ticket.cancel()
    model.open(1)
    assert list(ticket) == []
    assert len(model.steps) == 1
    assert engine.load().active == 0


# --- what goes wrong --------------------------------------------------------------------------------------


def test_a_failing_step_fails_its_jobs_and_no_others(start: Start) -> None:
    model = Model(gated=True)
    engine = start(model, parallel=2)
    model.fail_at = 2
    tickets = [engine.submit(job(1, 2, n=5)), engine.submit(job(3, n=5))]
    waiting = engine.submit(job(4, n=3))
    model.open(50)
    for ticket in tickets:
        with pytest.raises(MemoryError, match="out of memory"):
            list(ticket)
    assert tokens(waiting) == answer([4], 3)
    assert tokens(engine.submit(job(1, 2, 8, n=5))) == answer([1, 2, 8], 5)  # the caches are what they should be


class Forbids:
    """A constraint that allows `allowed` and fails after so many tokens."""

    def __init__(self, allowed: list[int], fails_after: int = 1000) -> None:
        self.allowed = allowed
        self.left = fails_after
        self.accepted: list[int] = []
        self.is_accepting = self.is_complete = False

    def mask(self) -> npt.NDArray[np.bool_]:
        mask = np.zeros(N_VOCAB, np.bool_)
        mask[self.allowed] = self.left > 0
        return mask

    def allows(self, token: int) -> bool:
        return bool(self.mask()[token])

    def accept(self, token: int) -> None:
        self.left -= 1
        self.accepted.append(token)


def test_a_constraint_holds_and_one_that_fails_ends_only_its_own_job(start: Start) -> None:
    engine = start(Model())
    held = Forbids([4, 5])
    tickets = [
        engine.submit(job(1, n=6, constraint=held)),
        engine.submit(job(2, n=6, constraint=Forbids([4, 5], fails_after=2))),
        engine.submit(job(3, n=6)),
    ]
    got = tokens(tickets[0])
    assert len(got) == 6 and set(got) <= {4, 5} and held.accepted == got
    with pytest.raises(RefEngineError, match="no token"):
        list(tickets[1])
    assert tokens(tickets[2]) == answer([3], 6)


def test_a_thought_that_is_too_long_is_ended_and_the_constraint_waits_for_that(start: Start) -> None:
    engine = start(Model())
    end = tuple(LETTERS.index(letter) for letter in "end")
    rule = ThinkingRule(start="begin", end="end", is_open=True, budget=4, close=end)
    held = Forbids([7])
    ticket = engine.submit(job(1, n=10, thinking=rule, constraint=held))
    assert tokens(ticket) == [*answer([1], 4), *end, 7, 7, 7]
    assert ticket.usage.thinking_tokens == 7
    assert held.accepted == [7, 7, 7]


def test_stopping_ends_every_stream(start: Start) -> None:
    model = Model(gated=True)
    engine = start(model, parallel=1)
    running, waiting = engine.submit(job(1, n=50)), engine.submit(job(2, n=50))
    model.wait_begun()
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    with pytest.raises(EngineStopped, match="shutting down"):
        list(waiting)  # at once: it never had a slot
    model.open(3)
    with pytest.raises(EngineStopped, match="shutting down"):
        list(running)
    stopper.join(30)
    assert not stopper.is_alive()
    for late in (lambda: engine.submit(job(3)), lambda: engine.call(lambda: 1)):
        with pytest.raises(EngineStopped):
            late()


def test_stopping_lets_streams_end_within_the_grace(start: Start) -> None:
    engine = start(Model())
    ticket = engine.submit(job(1, n=50))
    assert ticket.wait_started(30)
    engine.stop(grace=60)
    assert tokens(ticket) == answer([1], 50)


def test_calls_run_between_steps_on_the_engines_thread(start: Start) -> None:
    engine = start(Model())
    name = engine.call(lambda: threading.current_thread().name)
    assert name == "engine"

    def fails() -> None:
        raise RefEngineError("no")

    with pytest.raises(RefEngineError, match="no"):
        engine.call(fails)


def test_reading_with_a_timeout(start: Start) -> None:
    model = Model(gated=True)
    ticket = start(model).submit(job(1, n=1))
    with pytest.raises(queue.Empty):
        ticket.next(timeout=0.01)
    model.open()
    event = ticket.next(timeout=30)
    assert event is not None and event.token == answer([1], 1)[0]
    assert ticket.next(timeout=30) is None
    assert ticket.next(timeout=30) is None  # and so it stays


# --- a real model -----------------------------------------------------------------------------------------


def test_real_model_says_the_same_in_company(smollm2: Path) -> None:
    """Against `generate`, a sequence at a time with a cache of its own; with penalties and a seed besides."""
    model = ref_engine.load(smollm2, n_ctx=256, n_threads=1)
    prompts = ["The capital of France is", "Once upon a time, there was", "def fibonacci(n):", "1 2 3 4 5"]
    alone = [
        [event.token for event in model.generate(text, max_tokens=8, temperature=0.7, seed=i, repeat_penalty=1.1)]
        for i, text in enumerate(prompts)
    ]
    engine = Engine(model, parallel=3, n_ctx=256)
    try:
        params = [ref_engine_params(seed) for seed in range(4)]
        tickets = [
            engine.submit(Job(tuple(model.tokenize(text)), params[i], max_tokens=8)) for i, text in enumerate(prompts)
        ]
        assert [tokens(ticket) for ticket in tickets] == alone
    finally:
        engine.stop()


def ref_engine_params(seed: int) -> Any:
    from ref_engine.sample import SamplingParams

    return SamplingParams(temperature=0.7, seed=seed, repeat_penalty=1.1)
