"""Neutral events to the lines of Ollama's streams, and whole answers to one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..messages import (
    Answer,
    Done,
    Event,
    Failed,
    Start,
    TextDelta,
    ThinkingDelta,
    TokenInfo,
    ToolDelta,
    ToolEnd,
    ToolStart,
)
from .incoming import Call

Json = dict[str, Any]
_LONG = -9999.0


def now() -> str:
    """Time as Go writes it: RFC 3339 with fractions, UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _metrics(done: Done) -> Json:
    times, usage = done.timings, done.usage
    return {
        "total_duration": nanoseconds(times.total_s),
        "load_duration": nanoseconds(times.load_s),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(times.prompt_s),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanoseconds(times.decode_s),
    }


def _reason(done: Done) -> str:
    return "length" if done.reason == "length" else "stop"


def _tool_call(index: int, call_id: str, name: str, arguments: Mapping[str, Any]) -> Json:
    return {"id": f"call_{call_id}", "function": {"index": index, "name": name, "arguments": dict(arguments)}}


def _logprobs(tokens: Sequence[TokenInfo]) -> list[Json]:
    return [
        {**_one(token), **({"top_logprobs": [_one(t) for t in token.top]} if token.top else {})} for token in tokens
    ]


def _one(token: TokenInfo) -> Json:
    text = token.raw.decode("utf-8", "replace")
    return {"token": text, "logprob": max(token.logprob, _LONG), "bytes": list(token.raw)}


class Chat:
    """Lines of /api/chat: each has a message."""

    def __init__(self, call: Call) -> None:
        self._head = {"model": call.model}

    def line(self, message: Json, done: bool = False, **more: Any) -> Json:
        content = {"role": "assistant", "content": "", **message}
        return {**self._head, "created_at": now(), "message": content, **more, "done": done}

    def text(self, text: str) -> Json:
        return self.line({"content": text})

    def thinking(self, text: str) -> Json:
        return self.line({"thinking": text})

    def calls(self, calls: list[Json]) -> Json:
        return self.line({"tool_calls": calls})

    def end(self, done: Done) -> Json:
        return self.line({}, True, done_reason=_reason(done), **_metrics(done))

    def whole(self, answer: Answer, calls: list[Json]) -> Json:
        message: Json = {"content": answer.text}
        if answer.thinking:
            message["thinking"] = answer.thinking
        if calls:
            message["tool_calls"] = calls
        return self.line(message, True, done_reason=_reason(answer.done), **_metrics(answer.done))

    def nothing(self, reason: str) -> Json:
        return self.line({}, True, done_reason=reason)


class Generate:
    """Lines of /api/generate: each has a piece of the response."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def line(self, part: Json, done: bool = False, **more: Any) -> Json:
        return {"model": self._call.model, "created_at": now(), "response": "", **part, **more, "done": done}

    def text(self, text: str) -> Json:
        return self.line({"response": text})

    def thinking(self, text: str) -> Json:
        return self.line({"thinking": text})

    def calls(self, calls: list[Json]) -> Json:
        return self.line({"tool_calls": calls})

    def _ending(self, done: Done) -> Json:
        context = {} if self._call.raw else {"context": list(done.context)}
        return {"done_reason": _reason(done), **context, **_metrics(done)}

    def end(self, done: Done) -> Json:
        return self.line({}, True, **self._ending(done))

    def whole(self, answer: Answer, calls: list[Json]) -> Json:
        part: Json = {"response": answer.text}
        if answer.thinking:
            part["thinking"] = answer.thinking
        if calls:
            part["tool_calls"] = calls
        return self.line(part, True, **self._ending(answer.done))

    def nothing(self, reason: str) -> Json:
        return self.line({}, True, done_reason=reason)


Form = Chat | Generate
NewForm = Callable[[Call], Form]


def whole(form: Form, answer: Answer) -> Json:
    """The one line of a call that did not ask for a stream."""
    calls = [_tool_call(i, call.id, call.name, call.arguments) for i, call in enumerate(answer.tool_calls)]
    line = form.whole(answer, calls)
    return {**line, "logprobs": _logprobs(answer.tokens)} if answer.tokens else line


def stream(form: Form, events: Iterable[Event]) -> Iterator[Json]:
    """The lines of a stream. A call of a tool comes in one piece, when it is complete."""
    starts: dict[int, ToolStart] = {}
    for event in events:
        if isinstance(event, TextDelta):
            if event.text or event.tokens:
                line = form.text(event.text)
                yield {**line, "logprobs": _logprobs(event.tokens)} if event.tokens else line
        elif isinstance(event, ThinkingDelta):
            if event.text:
                yield form.thinking(event.text)
        elif isinstance(event, ToolStart):
            starts[event.index] = event
        elif isinstance(event, ToolEnd):
            start = starts[event.index]
            yield form.calls([_tool_call(event.index, start.id, start.name, event.arguments)])
        elif isinstance(event, Done):
            yield form.end(event)
        elif isinstance(event, Failed):
            yield {"error": event.error.message}
            return
        else:
            assert isinstance(event, Start | ToolDelta)
