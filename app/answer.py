"""From the engine's events to neutral ones: text, thinking and calls, told apart as they come."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

from ref_engine.engine import Ticket
from ref_engine.generate import Event as TokenEvent
from ref_engine.text.chat.tools import AnswerParser, CallArguments, CallEnd, CallStart, Part, Text, Thinking
from ref_engine.text.tokenizer import Tokenizer

from .messages import (
    Done,
    DoneReason,
    Event,
    Start,
    TextDelta,
    ThinkingDelta,
    Timings,
    TokenInfo,
    ToolDelta,
    ToolEnd,
    ToolStart,
    Usage,
)

_REASONS: dict[str, DoneReason] = {
    "stop": "stop",
    "stop_sequence": "stop_sequence",
    "length": "length",
    "context": "length",
}


class Answer:
    """One choice of an answer. `parser` None: all of it is text."""

    def __init__(
        self,
        ticket: Ticket,
        tokenizer: Tokenizer,
        *,
        choice: int,
        parser: AnswerParser | None,
        logprobs: bool,
        one_call: bool = False,
        before: str = "",
    ) -> None:
        """one_call: it ends after its first call. before: text that comes before that of the model."""
        self.ticket = ticket
        self.ended = False
        self._tokenizer = tokenizer
        self.choice = choice
        self._parser = parser
        self._logprobs = logprobs
        self._one_call = one_call
        self._before = before
        self._ids: list[int] = []
        self._tokens: tuple[TokenInfo, ...] = ()  # of tokens whose text is held back
        self._n_calls = 0

    def start(self, model: str) -> Iterator[Event]:
        usage = self.ticket.usage
        yield Start(model, usage.prompt_tokens, usage.cached_tokens, self.choice)
        if self._before:
            yield TextDelta(self._before, (), self.choice)

    def read(self, event: TokenEvent | None) -> Iterator[Event]:
        """What one event of the engine comes to; None: it has been cancelled."""
        if event is None:
            self.ended = True
            yield self._done("cancelled", None)
            return
        if event.token is not None:
            self._ids.append(event.token)
            if self._logprobs and event.finish_reason != "stop":
                self._tokens += (self._info(event),)
        parts: Sequence[Part] = [Text(event.text)] if self._parser is None else self._parser.push(event.text)
        if event.finish_reason is not None and self._parser is not None:
            parts = [*parts, *self._parser.flush()]
        yield from self._shown(parts)
        if self.ended:  # after its one call
            return
        if event.finish_reason is not None:
            if self._tokens:
                yield TextDelta("", self._take_tokens(), self.choice)
            reason = _REASONS[event.finish_reason]
            self.ended = True
            yield self._done("tool_use" if self._n_calls and reason == "stop" else reason, event.stop_sequence)

    def _shown(self, parts: Sequence[Part]) -> Iterator[Event]:
        for part in parts:
            if isinstance(part, Text):
                if part.text or (self._tokens and self._parser is None):
                    yield TextDelta(part.text, self._take_tokens(), self.choice)
            elif isinstance(part, Thinking):
                self._tokens = ()  # thinking has none
                yield ThinkingDelta(part.text, self.choice)
            elif isinstance(part, CallStart):
                self._tokens = ()
                self._n_calls += 1
                yield ToolStart(part.index, secrets.token_hex(12), part.name, self.choice)
            elif isinstance(part, CallArguments):
                self._tokens = ()
                yield ToolDelta(part.index, part.json, self.choice)
            elif isinstance(part, CallEnd):
                yield ToolEnd(part.index, part.arguments, self.choice)
                if self._one_call:
                    self.ticket.cancel()
                    self.ended = True
                    yield self._done("tool_use", None)
                    return

    def _take_tokens(self) -> tuple[TokenInfo, ...]:
        tokens, self._tokens = self._tokens, ()
        return tokens

    def _info(self, event: TokenEvent) -> TokenInfo:
        assert event.token is not None and event.logprob is not None
        top = tuple(TokenInfo(t.token, self._bytes(t.token), t.logprob) for t in event.top_logprobs)
        return TokenInfo(event.token, self._bytes(event.token), event.logprob, top)

    def _bytes(self, token: int) -> bytes:
        return self._tokenizer.token_bytes(token)

    def _done(self, reason: DoneReason, stop_sequence: str | None) -> Done:
        used, spent = self.ticket.usage, self.ticket.timings
        usage = Usage(used.prompt_tokens, used.cached_tokens, used.completion_tokens, used.thinking_tokens)
        timings = Timings(0.0, 0.0, spent.queued_s, spent.prompt_s, spent.decode_s)
        return Done(reason, usage, timings, stop_sequence, (*self.ticket.job.ids, *self._ids), self.choice)
