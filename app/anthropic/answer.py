"""Neutral events to the events of the Messages API, and whole answers to messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import ApiError, ErrorKind
from ..messages import (
    Answer,
    Done,
    DoneReason,
    Event,
    Failed,
    Start,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolCall,
    ToolDelta,
    ToolEnd,
    ToolStart,
    Usage,
)
from .blocks import sign
from .incoming import Call

Json = dict[str, Any]
Named = tuple[str, Json]
"""The name of a server-sent event and its data."""

STOP_REASON: Mapping[DoneReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "cancelled": "end_turn",
}
ERROR_TYPE: Mapping[ErrorKind, str] = {
    "invalid": "invalid_request_error",
    "unsupported": "invalid_request_error",
    "context_full": "invalid_request_error",
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "not_found": "not_found_error",
    "method": "invalid_request_error",
    "too_large": "request_too_large",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "internal": "api_error",
}


def error_body(error: ApiError, request_id: str | None = None) -> Json:
    """The JSON of an error. In a stream it has no request id: the response's header has it."""
    body: Json = {"type": "error", "error": {"type": ERROR_TYPE[error.kind], "message": error.message}}
    return body if request_id is None else {**body, "request_id": request_id}


def usage_body(usage: Usage, marked: bool) -> Json:
    """Token counts. The prompt is the sum of three: new tokens, new tokens marked to be cached, reused tokens."""
    new = usage.prompt_tokens - usage.cached_tokens
    return {
        "input_tokens": 0 if marked else new,
        "cache_creation_input_tokens": new if marked else 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _final_usage(usage: Usage, marked: bool) -> Json:
    details = {"output_tokens_details": {"thinking_tokens": usage.thinking_tokens}}
    return {**usage_body(usage, marked), **details}


def _message(call: Call, message_id: str, content: list[Json], usage: Json) -> Json:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": call.request.model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def whole(call: Call, message_id: str, answer: Answer) -> Json:
    """The message of a call that did not ask for a stream."""
    content: list[Json] = []
    for block in answer.blocks:
        if isinstance(block, TextBlock):
            content.append({"type": "text", "text": block.text})
        elif isinstance(block, ThinkingBlock):
            text = "" if call.omit_thinking else block.text
            content.append({"type": "thinking", "thinking": text, "signature": sign(block.text)})
        elif isinstance(block, ToolCall):
            content.append(_tool_use(block.id, block.name, dict(block.arguments)))
    body = _message(call, message_id, content, _final_usage(answer.done.usage, call.marked))
    return {**body, **_ending(call, answer.done)}


def _ending(call: Call, done: Done) -> Json:
    """Why it ends. A stop string that only the model has, not the request, is how the model ends its turn."""
    if done.reason == "stop_sequence" and done.stop_sequence not in call.request.stop:
        return {"stop_reason": "end_turn", "stop_sequence": None}
    return {"stop_reason": STOP_REASON[done.reason], "stop_sequence": done.stop_sequence}


def _tool_use(call_id: str, name: str, arguments: Json) -> Json:
    return {"type": "tool_use", "id": f"toolu_{call_id}", "name": name, "input": arguments}


class _Blocks:
    """Which block is open: the API has one at a time, and counts them."""

    def __init__(self, omit_thinking: bool) -> None:
        self._omit = omit_thinking
        self._open = ""
        self._index = -1
        self._thought = ""

    def push(self, event: ThinkingDelta | TextDelta | ToolStart | ToolDelta | ToolEnd) -> Iterator[Named]:
        if isinstance(event, ThinkingDelta) and event.text:
            yield from self._need("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self._thought += event.text
            if not self._omit:
                yield self._delta({"type": "thinking_delta", "thinking": event.text})
        elif isinstance(event, TextDelta) and event.text:
            yield from self._need("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": event.text})
        elif isinstance(event, ToolStart):
            yield from self.close()
            yield from self._need("tool_use", _tool_use(event.id, event.name, {}))
            yield self._delta({"type": "input_json_delta", "partial_json": ""})
        elif isinstance(event, ToolDelta) and event.json:
            yield self._delta({"type": "input_json_delta", "partial_json": event.json})
        elif isinstance(event, ToolEnd):
            yield from self.close()

    def close(self) -> Iterator[Named]:
        if not self._open:
            return
        if self._open == "thinking":
            yield self._delta({"type": "signature_delta", "signature": sign(self._thought)})
            self._thought = ""
        self._open = ""
        yield "content_block_stop", {"type": "content_block_stop", "index": self._index}

    def _need(self, kind: str, block: Json) -> Iterator[Named]:
        if self._open == kind:
            return
        yield from self.close()
        self._open, self._index = kind, self._index + 1
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        yield "content_block_start", start
        if self._index == 0:
            yield "ping", {"type": "ping"}

    def _delta(self, delta: Json) -> Named:
        return "content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta}


def stream(call: Call, message_id: str, events: Iterable[Event]) -> Iterator[Named]:
    """The events of a call that asked for a stream, in the order of the real API."""
    blocks = _Blocks(call.omit_thinking)
    for event in events:
        if isinstance(event, Start):
            usage = usage_body(Usage(event.prompt_tokens, event.cached_tokens), call.marked)
            yield "message_start", {"type": "message_start", "message": _message(call, message_id, [], usage)}
        elif isinstance(event, Failed):
            yield "error", error_body(event.error)
            return
        elif isinstance(event, Done):
            yield from blocks.close()
            usage = _final_usage(event.usage, call.marked)
            yield "message_delta", {"type": "message_delta", "delta": _ending(call, event), "usage": usage}
            yield "message_stop", {"type": "message_stop"}
        else:
            yield from blocks.push(event)


def sse(name: str, data: Json) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
