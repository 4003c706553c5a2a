"""One conversation with a loaded model: messages to token ids, answers as events, and a cache that is kept.

Each answer starts from the whole conversation as the template writes it. What its ids have in common with those in the
cache is not computed again: the cache is cut back to the common prefix, and only the rest runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ref_engine.cli.output import clean
from ref_engine.cli.progress import Nothing, Progress
from ref_engine.errors import ContextFull, RefEngineError
from ref_engine.generate import Event, generate, new_sampler
from ref_engine.sample import SamplingParams
from ref_engine.text.chat.template import ChatTemplate

if TYPE_CHECKING:
    from ref_engine.model import Model
    from ref_engine.text.grammar import Grammar

Message = dict[str, Any]
_PASS = 128  # prompt tokens between two steps of the progress bar


@dataclass(frozen=True)
class Settings:
    """How to answer. `max_tokens` None: until the model ends its answer or the context is full. `system` None: what
    the template puts in by itself, if anything; "" is an empty system prompt."""

    params: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    system: str | None = None


@dataclass(frozen=True)
class Timing:
    """Of the last answer: tokens of the prompt, how many of them the cache held already, and seconds."""

    prompt_tokens: int = 0
    reused: int = 0
    prompt_s: float = 0.0
    new_tokens: int = 0
    new_s: float = 0.0


class Session:
    """A model and the cache of one conversation."""

    def __init__(self, model: Model, *, raw: bool = False) -> None:
        """raw: no template, text is continued as it is; so it is for a model that has none. Raises TemplateError."""
        self.model = model
        self.template = None if raw or model.chat_template is None else _template(model, model.chat_template)
        self.timing = Timing()
        self.grammar: Grammar | None = None  # what answers must obey
        self.seed: int | None = None  # the one that the last answer was drawn with
        self._cache = model.new_cache()
        self._ids: list[int] = []  # what has been given to the cache; it holds the first n_past of them

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt of a conversation as token ids, with BOS in front once where the model wants it.

        Raises TemplateError.
        """
        if self.template is None:
            raise RefEngineError("this model has no chat template")
        tokenizer = self.model.tokenizer
        ids = tokenizer.encode(self.template.render(messages), add_special=False)
        lead = [id for id in tokenizer.added_before if id is not None]
        return ids if ids[: len(lead)] == lead else lead + ids  # a template may write BOS itself

    def fitting(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """Ids of the conversation, and how many of the oldest messages had to go to leave room for an answer.

        System messages stay, and so does the last one. Raises ContextFull if that is still too long.
        """
        kept = list(messages)
        room = self._cache.n_ctx * 3 // 4
        dropped = 0
        while True:
            ids = self.chat_ids(kept)
            old = [i for i, message in enumerate(kept[:-1]) if message.get("role") != "system"]
            if len(ids) <= room or (not old and len(ids) < self._cache.n_ctx):
                return ids, dropped
            if not old:
                raise ContextFull(f"{len(ids)} tokens do not fit a context of {self._cache.n_ctx}")
            for i in reversed(old[:2]):  # a question and its answer
                del kept[i]
                dropped += 1

    def answer(self, ids: Sequence[int], settings: Settings, progress: Progress | None = None) -> Iterator[Event]:
        """Read the prompt, as far as the cache does not know it; then events of the answer as they are taken.

        Stopping early, by an exception too, keeps what has been computed. Raises ContextFull for a prompt that does
        not fit, RefEngineError for settings out of range.
        """
        ids, cache = list(ids), self._cache
        if len(ids) > cache.n_ctx:
            raise ContextFull(f"the prompt of {len(ids)} tokens does not fit a context of {cache.n_ctx}")
        sampler = new_sampler(self.model.tokenizer, settings.params)
        self.seed = sampler.seed
        n = min(_common(self._ids[: cache.n_past], ids), max(len(ids) - 1, 0))
        cache.truncate(n)
        self._ids = ids
        self.timing = Timing(prompt_tokens=len(ids), reused=n)
        began = time.perf_counter()
        n = self._prefill(ids, n, progress or Nothing())
        sampler.accept(ids[:n])
        events = generate(
            self.model,
            ids[n:],
            max_tokens=settings.max_tokens,
            stop=settings.stop,
            cache=cache,
            sampler=sampler,
            constraint=None if self.grammar is None else self.grammar.constraint(),
        )
        return self._timed(events, began)

    def _timed(self, events: Iterator[Event], began: float) -> Iterator[Event]:
        """The same events; notes their tokens, which go into the cache, and the time they took."""
        for n, event in enumerate(events, start=1):
            now = time.perf_counter()
            if event.token is not None:
                self._ids.append(event.token)
            if n == 1:
                self.timing, began = replace(self.timing, prompt_s=now - began), now
            self.timing = replace(self.timing, new_tokens=n, new_s=now - began)
            yield event

    def _prefill(self, ids: list[int], n: int, bar: Progress) -> int:
        """Run a long prompt in pieces, all but the last of them; returns how many ids the cache holds then."""
        if len(ids) - n <= 2 * _PASS:
            return n
        bar.start(len(ids) - n, "reading the prompt")
        try:
            while len(ids) - n > _PASS:
                self.model.last_logits(ids[n : n + _PASS], self._cache)
                n += _PASS
                bar.advance(_PASS)
        finally:
            bar.done()
        return n


def system_message(settings: Settings) -> list[Message]:
    """What a conversation begins with: nothing, or the system prompt."""
    return [] if settings.system is None else [{"role": "system", "content": settings.system}]


def _template(model: Model, source: str) -> ChatTemplate:
    vocab = model.tokenizer.vocab

    def text(id: int | None) -> str:
        return "" if id is None else clean(vocab.tokens[id])

    return ChatTemplate(source, bos_token=text(vocab.bos_id), eos_token=text(vocab.eos_id))


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
