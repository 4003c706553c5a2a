"""From a prompt to a stream of events: prefill, then sample, show and forward one token at a time.

text = "".join(event.text for event in generate(model, prompt_ids, max_tokens=32))
"""

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ref_engine.errors import ContextFull, RefEngineError
from ref_engine.sample import (
    Choice,
    ClosingConstraint,
    Constraint,
    Sampler,
    SamplingParams,
    TokenLogprob,
    VocabInfo,
    dry_breakers,
)
from ref_engine.sample.penalties import repeat_lengths
from ref_engine.stop import StopMatcher
from ref_engine.thinking import ThinkingRule, ThinkingState

_CIRCLES, _CIRCLE_LOOK = 256, 16  # tokens that make a circle, in four rounds at least; tokens between two looks
_NEVER = 1 << 62
FinishReason = Literal["stop", "stop_sequence", "length", "context"]


class StreamDecoder(Protocol):
    """Token ids in, text out; holds back a character that is not complete."""

    def push(self, token: int, /) -> str: ...
    def flush(self) -> str: ...


class Vocab(Protocol):
    @property
    def eog_ids(self) -> Collection[int]: ...


class Tokenizer(Protocol):
    @property
    def n_vocab(self) -> int: ...
    @property
    def vocab(self) -> Vocab: ...
    def encode(self, text: str, /, add_special: bool = True, parse_special: bool = True) -> Sequence[int]: ...
    def token_bytes(self, token: int, /) -> bytes: ...
    def stream(self, special: bool | Collection[int] = False) -> StreamDecoder: ...


class Cache(Protocol):
    """What a model remembers of the tokens it has seen: n_past of them, n_ctx at most."""

    @property
    def n_past(self) -> int: ...
    @property
    def n_ctx(self) -> int: ...
    def truncate(self, n: int, /) -> None: ...


C = TypeVar("C", bound=Cache)


class Model(Protocol[C]):
    """All that generation needs of a model."""

    @property
    def tokenizer(self) -> Tokenizer: ...
    def new_cache(self) -> C: ...
    def last_logits(self, ids: Sequence[int], cache: C, /) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class Event:
    """One generated token. The texts of all events, joined, are the answer.

    `text` may be empty while a character or a possible stop string is incomplete, and then comes with a
    later event. `finish_reason` is None but for the last event: "stop" (end-of-generation token, whose own
    text is not shown, or a text to which its grammar allows nothing more), "stop_sequence" (named in
    `stop_sequence` and not shown), "length" (max_tokens) or "context" (no room left); a text with a grammar
    is completed before either, where that is possible, and then says "length"; where there is no max_tokens,
    also when it goes round in circles. `token` and `logprob` are
    None only in the one event of max_tokens=0.
    """

    text: str
    token: int | None
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop_sequence: str | None = None


def new_sampler(tokenizer: Tokenizer, params: SamplingParams, logprobs: int = 0) -> Sampler:
    """A sampler for this vocabulary. With DRY on it reads the vocabulary once, to find sequence breakers."""
    breakers = {}
    if params.dry_multiplier > 0 and "dry" in params.samplers and not params.mirostat:
        pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.n_vocab)]
        breakers = dry_breakers(
            params.dry_sequence_breakers,
            pieces,
            lambda text: tokenizer.encode(text, add_special=False, parse_special=False),
        )
    vocab = VocabInfo(tokenizer.n_vocab, frozenset(tokenizer.vocab.eog_ids), breakers)
    return Sampler(params, vocab, logprobs=logprobs)


class Continuation:
    """One text that grows: logits in, an event out. Who computes the logits, alone or for many at once, is no matter.

    Arguments as for `generate`; raises RefEngineError for one out of range.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        sampler: Sampler,
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        special: bool | Collection[int] = False,
        constraint: Constraint | None = None,
        thinking: ThinkingRule | None = None,
    ) -> None:
        if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 0):
            raise RefEngineError(f"max_tokens must be an integer from 0, or None, not {max_tokens!r}")
        self.sampler = sampler
        self.max_tokens = max_tokens
        self.n_generated = 0
        self.was_thinking = False
        """Whether the latest token was one of thinking."""
        self._matcher = StopMatcher(stop)
        self._decoder = tokenizer.stream(special=special)
        self._constraint = constraint
        self._thinking = None if thinking is None else ThinkingState(thinking)
        self._closed = False  # the text was made to end, its grammar met, because the tokens run out
        self._end_at = _NEVER  # at how many tokens it has to have ended, for it goes round in circles
        self._next_look = 0  # at how many tokens to see whether those that are left suffice

    def next(self, logits: npt.NDArray[np.float32], room: int) -> Event:
        """Choose a token from the logits (V,) after the latest one. `room`: for so many more the cache has room.

        An event with a finish_reason is the last one.
        """
        if self.max_tokens == 0:
            return Event("", None, finish_reason="length")
        left = room if self.max_tokens is None else min(room, self.max_tokens - self.n_generated - 1)
        choice = self._choose(logits, left)
        self.n_generated += 1
        ended = choice.token in self.sampler.vocab.eog_ids
        text = self._shown("" if ended else self._decoder.push(choice.token))
        reason: FinishReason | None = None
        if ended or (self._constraint is not None and self._constraint.is_complete):
            reason = "length" if self._closed else "stop"
        elif self.n_generated == self.max_tokens:
            reason = "length"
        elif not room:
            reason = "context"
        if reason:
            tail = self._decoder.flush()
            text += (tail if self.was_thinking else self._matcher.push(tail)) + self._matcher.flush()
        if self._matcher.found is not None:
            reason = "stop_sequence"
        return Event(text, choice.token, choice.logprob, choice.top_logprobs, reason, self._matcher.found)

    def _choose(self, logits: npt.NDArray[np.float32], left: int) -> Choice:
        """`left`: tokens that there can be after this one."""
        forced = None if self._thinking is None else self._thinking.take_forced()
        if forced is not None:
            return self.sampler.force(logits, forced)
        if self._constraint is None or (self._thinking is not None and self._thinking.open):
            return self.sampler.sample(logits)
        choice = self.sampler.sample(logits, self._constraint)
        if isinstance(self._constraint, ClosingConstraint):
            token = self._in_time(self._constraint, choice.token, left)
            if token != choice.token:
                choice, self._closed = self.sampler.replace(logits, token), True
        self._constraint.accept(choice.token)
        return choice

    def _in_time(self, constraint: ClosingConstraint, token: int, left: int) -> int:
        """The token, or another one where after it the text could not be completed with the tokens that are left.

        The way to the end of the text is looked for less often the longer it has: it costs as much as many tokens.
        """
        if self.max_tokens is None and self.n_generated % _CIRCLE_LOOK == 0 and self._in_circles():
            way = constraint.way_out(left, after=token)
            if way is not None:
                self._end_at, self._next_look = self.n_generated + 1 + len(way), 0
        left = min(left, self._end_at - self.n_generated - 1)
        if self.n_generated < self._next_look:
            return token
        way = constraint.way_out(left, after=token)
        if way is not None:
            self._next_look = self.n_generated + 1 + (left - len(way)) // 4
            return token
        self._next_look = self.n_generated + 1
        closing = constraint.way_out(left + 1)
        return closing[0] if closing else token

    def _in_circles(self) -> bool:
        """Whether the same tokens come again and again: what small models do that cannot find the end of a list."""
        if self.n_generated < _CIRCLES:
            return False
        tail = self.sampler.history[-2 * _CIRCLES :]
        again = repeat_lengths(tail[-min(self.n_generated, len(tail)) :])
        periods = ((length, len(again) - i) for i, length in enumerate(again))
        return any(length + period >= _CIRCLES and length >= 3 * period for length, period in periods)

    def _shown(self, text: str) -> str:
        """What of a token's text is known to be before any stop string; thinking is not searched for them."""
        self.was_thinking = self._thinking is not None and self._thinking.push(text)
        return self._matcher.flush() + text if self.was_thinking else self._matcher.push(text)


def generate(
    model: Model[C],
    prompt_ids: Sequence[int],
    *,
    params: SamplingParams | None = None,
    max_tokens: int | None = None,
    stop: str | Sequence[str] = (),
    ignore_eos: bool = False,
    logprobs: int = 0,
    cache: C | None = None,
    sampler: Sampler | None = None,
    special: bool | Collection[int] = False,
    constraint: Constraint | None = None,
    thinking: ThinkingRule | None = None,
) -> Generator[Event, None, None]:
    """Append prompt_ids to the cache, then generate: one event per token, the last with a finish_reason.

    params         how to sample; None means the defaults of SamplingParams
    max_tokens     None: until the context is full. 0: only the prefill, and one event without a token
    stop           strings that end the text, see StopMatcher
    ignore_eos     never choose an end-of-generation token
    logprobs       how many alternatives each event names
    cache          from model.new_cache(), and what it holds stays in front; None: a new one
    sampler        instead of params, ignore_eos and logprobs: one from `new_sampler`, to know its seed, or
                   to let it `accept` first the tokens that the cache already holds
    special        show control tokens: all, none, or those with these ids
    constraint     what the text may be (text.grammar); one that is fresh. It waits while thinking is open
    thinking       how thinking begins and ends, and after how many tokens it must

    The arguments are checked here, before anything is computed; the work is done as events are taken.
    Whenever the caller holds an event, stops early or interrupts, cache.n_past is the number of tokens
    forwarded: the prompt and all generated tokens but the latest, which no one has needed the logits of yet.
    Raises ContextFull for a prompt that does not fit, RefEngineError for any other argument out of range.
    """
    tokenizer = model.tokenizer
    if sampler is None:
        params = params or SamplingParams()
        params = replace(params, ignore_eos=params.ignore_eos or ignore_eos)
        sampler = new_sampler(tokenizer, params, logprobs)
    elif params is not None or ignore_eos or logprobs:
        raise RefEngineError("give either a sampler or params, ignore_eos and logprobs, not both")
    text = Continuation(
        tokenizer, sampler, max_tokens=max_tokens, stop=stop, special=special, constraint=constraint, thinking=thinking
    )
    ids = checked_prompt(prompt_ids, tokenizer.n_vocab)
    cache = model.new_cache() if cache is None else cache
    if cache.n_past + len(ids) > cache.n_ctx:
        raise ContextFull(
            f"the prompt of {len(ids)} tokens does not fit: {cache.n_past} of {cache.n_ctx} are used already"
        )
    return _events(model, ids, cache, text)


def _events(model: Model[C], ids: list[int], cache: C, text: Continuation) -> Generator[Event, None, None]:
    text.sampler.accept(ids)
    while True:
        event = text.next(_forward(model, ids, cache), room=cache.n_ctx - cache.n_past)
        yield event
        if event.finish_reason or event.token is None:
            return
        ids = [event.token]


def _forward(model: Model[C], ids: list[int], cache: C) -> npt.NDArray[np.float32]:
    """Logits (V,) after the last of ids; where it is interrupted the cache is put back to what it held."""
    n_past = cache.n_past
    try:
        return model.last_logits(ids, cache)
    except BaseException:
        if cache.n_past != n_past:
            cache.truncate(n_past)
        raise


def checked_prompt(prompt_ids: Sequence[int], n_vocab: int) -> list[int]:
    ids = [int(token) for token in prompt_ids]
    if not ids:
        raise RefEngineError("the prompt is empty: generation needs a token, such as BOS, to start from")
    for token in ids:
        if not 0 <= token < n_vocab:
            raise RefEngineError(f"prompt token {token} is outside the vocabulary of {n_vocab}")
    return ids
