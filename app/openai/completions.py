"""POST /v1/completions: text that goes on where a prompt ends, without a chat template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..fields import (
    HONOURED,
    IGNORED,
    INT_MAX,
    REFUSED,
    By,
    Field,
    Flag,
    Integer,
    Invalid,
    ListOf,
    Record,
    Text,
    kind,
    read,
)
from ..messages import Answer, Done, Event, Failed, Request, Start, TextDelta, TokenInfo, Usage
from .common import (
    DEFAULTS,
    FINGERPRINT,
    FINISH_REASON,
    KEEP_ALIVE,
    MODEL,
    SAMPLING,
    STOP,
    STREAM_OPTIONS,
    Json,
    error_body,
    finite,
    keep_alive,
    sampling,
    summed,
    usage_body,
)

MAX_PROMPTS = 64
MAX_TOKENS = 16
"""What the real API generates where a request does not say."""

Prompt = str | tuple[int, ...]


def prompts(value: object, where: str) -> tuple[Prompt, ...]:
    """A text, texts, token ids, or lists of token ids."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise Invalid(where, f"must be a string or a list that is not empty, not {kind(value)}")
    if isinstance(value[0], str):
        return tuple(ListOf(Text(), 1, MAX_PROMPTS)(value, where))
    ids = ListOf(Integer(0, INT_MAX), 1, 1_000_000)
    if isinstance(value[0], list):
        return tuple(tuple(each) for each in ListOf(ids, 1, MAX_PROMPTS)(value, where))
    return (tuple(ids(value, where)),)


FIELDS = (
    MODEL,
    Field("prompt", By("string, token ids, or a list of them", prompts), HONOURED, "64 at most", required=True),
    *SAMPLING,
    STOP,
    Field("max_tokens", Integer(0, INT_MAX), HONOURED, "16 by default, as OpenAI's"),
    Field("n", Integer(1, 128), HONOURED),
    Field("best_of", Integer(1, 128), REFUSED, "only the same as n"),
    Field("echo", Flag(), HONOURED, "not together with logprobs"),
    Field("logprobs", Integer(0, 20), HONOURED),
    Field("suffix", Text(), HONOURED, "needs a model with fill-in-the-middle tokens"),
    Field("stream", Flag(), HONOURED),
    Field("stream_options", Record(STREAM_OPTIONS), HONOURED),
    KEEP_ALIVE,
    Field("user", Text(), IGNORED),
)


@dataclass(frozen=True)
class Call:
    """One request for each prompt, and what their answer must know of them."""

    requests: tuple[Request, ...]
    include_usage: bool


def parse(body: object) -> Call:
    values = read(body, FIELDS)
    n = values.get("n", 1)
    if values.get("best_of", n) != n:
        raise Invalid("best_of", f"can only be the same as n, which is {n}: nothing is ranked here", "unsupported")
    if values.get("echo") and "logprobs" in values:
        raise Invalid("echo", "cannot be there together with logprobs: prompts are not scored here", "unsupported")
    if "stream_options" in values and not values.get("stream"):
        raise Invalid("stream_options", "needs stream to be true")
    request = Request(
        model=values["model"],
        prompt="",
        sampling=sampling(values),
        defaults=DEFAULTS,
        max_tokens=values.get("max_tokens", MAX_TOKENS),
        stop=values.get("stop", ()),
        logprobs=values.get("logprobs"),
        n=n,
        suffix=values.get("suffix"),
        echo=values.get("echo", False),
        keep_alive=keep_alive(values),
        stream=values.get("stream", False),
    )
    requests = tuple(replace(request, prompt=prompt) for prompt in values["prompt"])
    return Call(requests, values.get("stream_options", {}).get("include_usage", False))


def whole(call: Call, completion_id: str, created: int, answers: Sequence[Answer]) -> Json:
    """The completion of a call that did not ask for a stream; `answers`: those of the first prompt come first."""
    choices = [
        _choice(i, answer.text, _logprobs(answer.tokens, 0) if answer.tokens else None, answer.done)
        for i, answer in enumerate(answers)
    ]
    usage = summed([answer.done.usage for answer in answers], len(call.requests))
    return {**_head(call, completion_id, created), "choices": choices, "usage": usage_body(usage)}


def _head(call: Call, completion_id: str, created: int) -> Json:
    return {
        "id": completion_id,
        "object": "text_completion",
        "created": created,
        "model": call.requests[0].model,
        "system_fingerprint": FINGERPRINT,
    }


def _choice(index: int, text: str, logprobs: Json | None, done: Done | None) -> Json:
    reason = None if done is None else FINISH_REASON[done.reason]
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(tokens: Sequence[TokenInfo], offset: int) -> Json:
    """The older form: parallel lists. `offset`: characters of the answer before these tokens."""
    texts = [token.raw.decode("utf-8", "replace") for token in tokens]
    offsets = [offset + sum(map(len, texts[:i])) for i in range(len(texts))]
    return {
        "tokens": texts,
        "token_logprobs": [finite(token.logprob) for token in tokens],
        "top_logprobs": [
            {other.raw.decode("utf-8", "replace"): finite(other.logprob) for other in token.top} for token in tokens
        ],
        "text_offset": offsets,
    }


@dataclass
class _Counts:
    usages: dict[int, Usage] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)


def stream(call: Call, completion_id: str, created: int, answers: Sequence[Iterable[Event]]) -> Iterator[Json | str]:
    """The chunks of a call that asked for a stream: one prompt after the other; "[DONE]" at the end."""
    head = _head(call, completion_id, created)
    more = {"usage": None} if call.include_usage else {}
    counts = _Counts()
    for number, events in enumerate(answers):
        for event in events:
            if isinstance(event, Failed):
                yield error_body(event.error)
                return
            choice = _piece(event, number * call.requests[0].n + event.choice, counts)
            if choice is not None:
                yield {**head, "choices": [choice], **more}
    if call.include_usage:
        usages = [counts.usages[i] for i in sorted(counts.usages)]
        yield {**head, "choices": [], "usage": usage_body(summed(usages, len(call.requests)))}
    yield "[DONE]"


def _piece(event: Event, index: int, counts: _Counts) -> Json | None:
    if isinstance(event, Done):
        counts.usages[index] = event.usage
        return _choice(index, "", None, event)
    if not isinstance(event, TextDelta) or not (event.text or event.tokens):
        assert isinstance(event, Start | TextDelta), "a raw prompt has no tools and no thinking"
        return None
    offset = counts.offsets.get(index, 0)
    logprobs = _logprobs(event.tokens, offset) if event.tokens else None
    if logprobs is not None:
        counts.offsets[index] = offset + sum(map(len, logprobs["tokens"]))
    return _choice(index, event.text, logprobs, None)
