"""Requests to answers: find the model, make the prompt, hand jobs to its engine, tell what comes out, neutrally."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ref_engine.engine import Job, Ticket
from ref_engine.errors import RefEngineError
from ref_engine.sample import SamplingParams
from ref_engine.text.chat.tools import AnswerParser
from ref_engine.text.grammar import Grammar
from ref_engine.thinking import ThinkingRule

from .answer import Answer
from .embedding import embed
from .errors import ApiError
from .grammars import Grammars
from .library import Library, Own
from .logs import Log
from .messages import Done, Embeddings, EmbedRequest, Event, Failed, Request
from .metrics import Metrics
from .models import Lease, ModelPool
from .prompt import Prompt, make_prompt
from .resident import Resident
from .service import ModelCard, never
from .trouble import as_api_error

HELD_PENALTY = 1.1
"""repeat_penalty of answers that a grammar holds, where nobody says otherwise; long Ollama's default for all."""

_POLL = 0.05  # seconds between two looks whether a client is still there, while nothing comes out


@dataclass(frozen=True)
class Caller:
    """Who asks: for the log, and for the turns of the queue."""

    request_id: str | None = None
    client: str = ""


class Pipeline:
    """The `Service` that the dialects speak to."""

    def __init__(
        self,
        library: Library,
        pool: ModelPool,
        *,
        metrics: Metrics | None = None,
        log: Log | None = None,
        caller: Callable[[], Caller] = Caller,
    ) -> None:
        self.library = library
        self.pool = pool
        self._metrics = metrics or Metrics()
        self._log = log or Log()
        self._caller = caller
        self._grammars = Grammars()

    def run(self, request: Request, gone: Callable[[], bool] = never) -> Iterator[Event]:
        began, caller = time.perf_counter(), self._caller()
        found = self.library.find(request.model)
        lease = self.pool.lease(found.name, found.path, request.keep_alive, gone)
        answers: list[Answer] = []
        try:
            answers = self._answers(request, lease.resident, found.own, caller, gone)
            events = self._events(request, answers, lease, caller, began, gone)
            first = next(events)  # so that what fails before the prompt has a slot is raised, and not told in a stream
            if isinstance(first, Failed):
                raise first.error
        except BaseException as error:
            for answer in answers:
                answer.ticket.cancel()
            lease.release()
            if isinstance(error, RefEngineError):
                raise as_api_error(error) from error
            raise
        return _again(first, events)

    def count_tokens(self, request: Request) -> int:
        found = self.library.find(request.model)
        lease = self.pool.lease(found.name, found.path, request.keep_alive)
        try:
            return len(self._prompt(request, lease.resident, found.own).ids)
        except RefEngineError as error:
            raise as_api_error(error) from error
        finally:
            lease.release()

    def embed(self, request: EmbedRequest) -> Embeddings:
        began = time.perf_counter()
        found = self.library.find(request.model)
        lease = self.pool.lease(found.name, found.path, request.keep_alive)
        try:
            vectors, n_tokens = embed(request, lease.resident)
        except RefEngineError as error:
            raise as_api_error(error) from error
        finally:
            lease.release()
        return Embeddings(request.model, vectors, n_tokens, time.perf_counter() - began, lease.load_s)

    def load(self, model: str, keep_alive: float | None) -> None:
        found = self.library.find(model)
        if keep_alive == 0:
            self.pool.unload(found.path)
        else:
            self.pool.lease(found.name, found.path, keep_alive).release()

    def models(self) -> Sequence[ModelCard]:
        return self.library.cards()

    def model(self, name: str) -> ModelCard:
        return self.library.card(name)

    # -- one request

    def _prompt(self, request: Request, resident: Resident, own: Own) -> Prompt:
        limit = _context(request, resident, own)
        most = _most(request, own)
        room = limit - min(limit // 4 if most is None else most, limit // 4) - 1
        return make_prompt(request, resident, own, max(room, 1))

    def _answers(
        self, request: Request, resident: Resident, own: Own, caller: Caller, gone: Callable[[], bool]
    ) -> list[Answer]:
        prompt = self._prompt(request, resident, own)
        self._log.text("prompt", request_id=caller.request_id, text=prompt.text)
        grammar = self._grammars.of(request, resident, prompt.text)
        tools = request.tools if request.tool_choice.mode != "none" else ()
        format, conversation = resident.format, request.prompt is None
        reads = conversation and (bool(tools) or format.thinking is not None or bool(format.dropped))
        params = _params(request, resident, own, held=isinstance(grammar, Grammar))
        job = Job(
            ids=prompt.ids,
            params=params,
            max_tokens=_most(request, own),
            stop=(*request.stop, *own.stop),
            logprobs=request.logprobs or 0,
            thinking=_thinking(request, resident, prompt) if conversation else None,
            special=resident.shown_ids if reads else False,
            n_ctx=_context(request, resident, own),
            client=caller.client,
        )
        answers: list[Answer] = []
        try:
            for choice in range(request.n):
                seed = params.seed if params.seed in (None, -1) else params.seed + choice
                mine = replace(
                    job,
                    params=replace(params, seed=seed),
                    constraint=None if grammar is None else grammar.constraint(),
                )
                answers.append(
                    Answer(
                        resident.engine.submit(mine, gone),
                        resident.tokenizer,
                        choice=choice,
                        parser=self._parser(request, resident, prompt) if reads else None,
                        logprobs=request.logprobs is not None,
                        one_call=bool(tools) and not request.tool_choice.parallel,
                        before=prompt.text if request.echo else "",
                    )
                )
        except BaseException:
            for answer in answers:
                answer.ticket.cancel()
            raise
        return answers

    def _parser(self, request: Request, resident: Resident, prompt: Prompt) -> AnswerParser:
        tools = request.tools if request.tool_choice.mode != "none" else ()
        return resident.format.parser(tools, prompt=prompt.text)

    def _events(
        self,
        request: Request,
        answers: Sequence[Answer],
        lease: Lease,
        caller: Caller,
        began: float,
        gone: Callable[[], bool],
    ) -> Iterator[Event]:
        """All events of all choices. Ends their jobs and gives the model back, however it is left."""
        done: list[Done] = []
        started: set[int] = set()
        try:
            while len(done) < len(answers):
                for i, answer in enumerate(answers):
                    if answer.ended:
                        continue
                    if i not in started:
                        if not _started(answer.ticket, gone, patient=not started):
                            continue
                        started.add(i)
                        yield from answer.start(request.model)
                    for event in answer.read(answer.ticket.next()):
                        if isinstance(event, Done):
                            total_s = time.perf_counter() - began
                            event = replace(event, timings=replace(event.timings, total_s=total_s, load_s=lease.load_s))
                            done.append(event)
                        yield event
        except Exception as error:  # noqa: BLE001 - the stream may have begun: whatever it is becomes its last event
            known = as_api_error(error)
            if known.kind == "internal":
                self._log.trouble(caller.request_id, "".join(traceback.format_exception(error)))
            yield Failed(known)
        finally:
            for answer in answers:
                answer.ticket.cancel()
            lease.release()
            self._account(request, answers, done, caller)

    def _account(self, request: Request, answers: Sequence[Answer], done: Sequence[Done], caller: Caller) -> None:
        """Figures and a log line for what has been computed, however it ended."""
        metrics, model = self._metrics, request.model
        for answer in answers:
            usage, timings = answer.ticket.usage, answer.ticket.timings
            end = next((event for event in done if event.choice == answer.choice), None)
            metrics.count("ref_engine_prompt_tokens_total", "Prompt tokens", usage.prompt_tokens, model=model)
            metrics.count("ref_engine_cached_tokens_total", "Those that a slot had", usage.cached_tokens, model=model)
            metrics.count("ref_engine_completion_tokens_total", "Tokens said", usage.completion_tokens, model=model)
            metrics.observe("ref_engine_queue_seconds", "Waiting for a slot", timings.queued_s, model=model)
            metrics.observe("ref_engine_prompt_seconds", "Reading the prompt", timings.prompt_s, model=model)
            if usage.completion_tokens > 1:
                pace = timings.decode_s / (usage.completion_tokens - 1)
                metrics.observe("ref_engine_token_seconds", "Between two tokens, on average", pace, model=model)
            self._log.write(
                "generation",
                request_id=caller.request_id,
                model=model,
                reason="failed" if end is None else end.reason,
                prompt_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                completion_tokens=usage.completion_tokens,
                queued_s=round(timings.queued_s, 6),
                prompt_s=round(timings.prompt_s, 6),
                decode_s=round(timings.decode_s, 6),
            )


def _again(first: Event, rest: Iterator[Event]) -> Iterator[Event]:
    yield first
    yield from rest


def _started(ticket: Ticket, gone: Callable[[], bool], patient: bool) -> bool:
    """Whether a job has a slot; `patient`: wait until it has. Raises ApiError where the client leaves meanwhile."""
    while not ticket.wait_started(_POLL if patient else 0):
        if gone():
            raise ApiError("timeout", "the client has left")
        if not patient:
            return False
    return True


def _context(request: Request, resident: Resident, own: Own) -> int:
    asked = request.n_ctx if request.n_ctx is not None else own.n_ctx
    return resident.engine.n_ctx if asked is None else min(asked, resident.engine.n_ctx)


def _most(request: Request, own: Own) -> int | None:
    return request.max_tokens if request.max_tokens is not None else own.max_tokens


def _params(request: Request, resident: Resident, own: Own, held: bool) -> SamplingParams:
    """Options of the request, else of the model, else of the dialect. Raises ApiError naming the one that is wrong.

    `held`: by a grammar. A small model then fills an open list with the same word for ever, as it cannot end its text
    but by ending the list; a little penalty on what was there gets it out.
    """
    preset = {} if resident.preset is None else resident.preset.parameters
    penalty = {"repeat_penalty": HELD_PENALTY} if held else {}
    options = {**request.defaults, **penalty, **preset, **own.sampling, **request.sampling}
    try:
        return SamplingParams.from_options(options)
    except RefEngineError as error:
        raise ApiError("invalid", str(error)) from None


def _thinking(request: Request, resident: Resident, prompt: Prompt) -> ThinkingRule | None:
    tags, tokenizer = resident.format.thinking, resident.tokenizer
    if tags is None:
        return None
    close = tokenizer.encode(f"\n{tags.end}{tags.after}", add_special=False)
    return ThinkingRule(
        start=tags.begin.strip(),
        end=tags.end.strip(),
        is_open=resident.format.thinking_open(prompt.text),
        budget=request.thinking.budget,
        close=tuple(close),
    )
