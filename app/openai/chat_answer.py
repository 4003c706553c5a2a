"""Neutral events to chunks of a chat completion, and whole answers to chat completions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from ..messages import (
    Answer,
    Done,
    Event,
    Failed,
    Start,
    TextDelta,
    ThinkingDelta,
    TokenInfo,
    ToolCall,
    ToolDelta,
    ToolEnd,
    ToolStart,
    Usage,
)
from .chat_request import Call
from .common import FINGERPRINT, FINISH_REASON, Json, error_body, summed, token_body, usage_body


def whole(call: Call, completion_id: str, created: int, answers: Sequence[Answer]) -> Json:
    """The completion of a call that did not ask for a stream."""
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": call.request.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [_choice(call, i, answer) for i, answer in enumerate(answers)],
        "usage": usage_body(summed([answer.done.usage for answer in answers])),
    }


def _choice(call: Call, index: int, answer: Answer) -> Json:
    calls = [
        {
            "id": f"call_{made.id}",
            "type": "function",
            "function": _function(made.name, json.dumps(dict(made.arguments))),
        }
        for made in answer.tool_calls
    ]
    message: Json = {"role": "assistant", "content": None if calls and not answer.text else answer.text}
    message["refusal"] = None
    if answer.thinking:
        message["reasoning"] = answer.thinking
    if calls:
        message["tool_calls"] = calls
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(call, answer.tokens),
        "finish_reason": FINISH_REASON[answer.done.reason],
    }


def _call(made: ToolCall) -> Json:
    arguments = json.dumps(dict(made.arguments), ensure_ascii=False)
    return {"id": f"call_{made.id}", "type": "function", "function": _function(made.name, arguments)}


def _function(name: str, arguments: str) -> Json:
    return {"name": name, "arguments": arguments}


def _logprobs(call: Call, tokens: Sequence[TokenInfo]) -> Json | None:
    if call.request.logprobs is None:
        return None
    return {"content": [token_body(token) for token in tokens], "refusal": None}


def stream(call: Call, completion_id: str, created: int, events: Iterable[Event]) -> Iterator[Json | str]:
    """The chunks of a call that asked for a stream; "[DONE]" at the end, or an error object in its place."""
    head = {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": call.request.model,
        "system_fingerprint": FINGERPRINT,
    }
    usages: dict[int, Usage] = {}
    for event in events:
        if isinstance(event, Failed):
            yield error_body(event.error)
            return
        if isinstance(event, Done):
            usages[event.choice] = event.usage
        choice = _piece(call, event)
        if choice is not None:
            yield {**head, "choices": [choice], **({"usage": None} if call.include_usage else {})}
    if call.include_usage:
        total = summed([usages[i] for i in sorted(usages)])
        yield {**head, "choices": [], "usage": usage_body(total)}
    yield "[DONE]"


def _piece(call: Call, event: Event) -> Json | None:
    """What an event adds to its choice; None: nothing."""
    delta: Json
    tokens: tuple[TokenInfo, ...] = ()
    reason = None
    if isinstance(event, Start):
        delta = {"role": "assistant", "content": "", "refusal": None}
    elif isinstance(event, ThinkingDelta):
        delta = {"reasoning": event.text}
    elif isinstance(event, TextDelta):
        delta, tokens = {"content": event.text}, event.tokens
        if not event.text and not tokens:
            return None
    elif isinstance(event, ToolStart):
        function = _function(event.name, "")
        made = {"index": event.index, "id": f"call_{event.id}", "type": "function", "function": function}
        delta = {"tool_calls": [made]}
    elif isinstance(event, ToolDelta):
        delta = {"tool_calls": [{"index": event.index, "function": {"arguments": event.json}}]}
    elif isinstance(event, Done):
        delta, reason = {}, FINISH_REASON[event.reason]
    else:
        assert isinstance(event, ToolEnd | Failed)
        return None
    logprobs = _logprobs(call, tokens) if tokens else None
    return {"index": event.choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
