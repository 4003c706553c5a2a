"""Neutral events to the events of the Responses API, and whole answers to responses.

Every event has a number and says of which item of the output it is; an item is announced, filled and finished.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator

from ..errors import ApiError
from ..messages import (
    Answer,
    Block,
    Done,
    Event,
    Failed,
    Start,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    TokenInfo,
    ToolCall,
    ToolDelta,
    ToolEnd,
    ToolStart,
    Usage,
)
from .common import Json, token_body
from .responses_items import seal
from .responses_request import Call


class Writer:
    """Writes one response; `whole` for a call without a stream, `stream` for one with."""

    def __init__(self, call: Call, response_id: str, created: float) -> None:
        self._call = call
        self._id = response_id
        self._created = int(created)
        self._output: list[Json] = []
        self._number = -1
        self._text = ""
        self._tokens: list[TokenInfo] = []

    # -- a whole answer

    def whole(self, answer: Answer) -> Json:
        for block in answer.blocks:
            cut = answer.done.reason == "length" and block is answer.blocks[-1]
            self._output.append(self._finished(block, list(answer.tokens), "incomplete" if cut else "completed"))
        return self._response(*_status(answer.done), answer.done.usage)

    def _finished(self, block: Block, tokens: list[TokenInfo], status: str) -> Json:
        if isinstance(block, ThinkingBlock):
            return self._reasoning(_id("rs_"), block.text, status)
        if isinstance(block, TextBlock):
            return _message(_id("msg_"), [self._text_part(block.text, tokens)], status)
        assert isinstance(block, ToolCall)
        arguments = json.dumps(dict(block.arguments), ensure_ascii=False)
        return _function_call(_id("fc_"), block.id, block.name, arguments, status)

    def _response(self, status: str, why: str | None, usage: Usage | None, error: ApiError | None = None) -> Json:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": None if error is None else {"code": "server_error", "message": error.message},
            "incomplete_details": None if why is None else {"reason": why},
            "model": self._call.request.model,
            "output": list(self._output),
            **self._call.echo,
            "usage": None if usage is None else _usage(usage),
        }

    def _text_part(self, text: str, tokens: list[TokenInfo]) -> Json:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": [token_body(t) for t in tokens]}

    def _reasoning(self, item_id: str, text: str, status: str) -> Json:
        part = {"type": "summary_text" if self._call.summarized else "reasoning_text", "text": text}
        item: Json = {"id": item_id, "type": "reasoning", "summary": [], "status": status}
        if text:
            item["summary" if self._call.summarized else "content"] = [part]
        if self._call.sealed and status == "completed":
            item["encrypted_content"] = seal(text)
        return item

    # -- a stream

    def stream(self, events: Iterable[Event]) -> Iterator[Json]:
        for event in events:
            if isinstance(event, Start):
                yield self._event("response.created", response=self._response("in_progress", None, None))
                yield self._event("response.in_progress", response=self._response("in_progress", None, None))
            elif isinstance(event, Failed):
                failed = self._response("failed", None, None, event.error)
                yield self._event("response.failed", response=failed)
                return
            elif isinstance(event, Done):
                yield from self._close("completed" if event.reason != "length" else "incomplete")
                status, why = _status(event)
                yield self._event(f"response.{status}", response=self._response(status, why, event.usage))
            else:
                yield from self._push(event)

    def _push(self, event: ThinkingDelta | TextDelta | ToolStart | ToolDelta | ToolEnd) -> Iterator[Json]:
        if isinstance(event, ThinkingDelta) and event.text:
            yield from self._need("reasoning", self._reasoning(_id("rs_"), "", "in_progress"))
            self._text += event.text
            yield self._delta(self._reasoning_name("delta"), event.text)
        elif isinstance(event, TextDelta) and (event.text or event.tokens):
            yield from self._need("message", _message(_id("msg_"), [], "in_progress"))
            self._text += event.text
            self._tokens += event.tokens
            logprobs = [token_body(token) for token in event.tokens]
            yield self._delta("output_text.delta", event.text, logprobs=logprobs)
        elif isinstance(event, ToolStart):
            yield from self._close("completed")
            yield from self._need("function_call", _function_call(_id("fc_"), event.id, event.name, "", "in_progress"))
        elif isinstance(event, ToolDelta) and event.json:
            self._text += event.json
            yield self._delta("function_call_arguments.delta", event.json)
        elif isinstance(event, ToolEnd):
            yield from self._close("completed")

    def _need(self, kind: str, item: Json) -> Iterator[Json]:
        """Announce an item of this kind, unless one is being filled."""
        if self._open() == kind:
            return
        yield from self._close("completed")
        self._output.append(item)
        self._text, self._tokens = "", []
        yield self._event("response.output_item.added", output_index=len(self._output) - 1, item=item)
        if kind == "message":
            yield self._of_item("content_part.added", content_index=0, part=self._text_part("", []))
        elif kind == "reasoning":
            if self._call.summarized:
                part = {"type": "summary_text", "text": ""}
                yield self._of_item("reasoning_summary_part.added", summary_index=0, part=part)
            else:
                part = {"type": "reasoning_text", "text": ""}
                yield self._of_item("content_part.added", content_index=0, part=part)

    def _open(self) -> str:
        """The kind of item that is being filled; "" where none is."""
        last = self._output[-1] if self._output else None
        return str(last["type"]) if last is not None and last["status"] == "in_progress" else ""

    def _close(self, status: str) -> Iterator[Json]:
        """Finish the item that is being filled, if any."""
        kind = self._open()
        if not kind:
            return
        item = self._output[-1]
        if kind == "message":
            part = self._text_part(self._text, self._tokens)
            logprobs = part["logprobs"]
            yield self._of_item("output_text.done", content_index=0, text=self._text, logprobs=logprobs)
            yield self._of_item("content_part.done", content_index=0, part=part)
            done = _message(item["id"], [part], status)
        elif kind == "reasoning":
            done = self._reasoning(item["id"], self._text, status)
            yield self._indexed(self._reasoning_name("done"), text=self._text)
            if self._call.summarized:
                yield self._of_item("reasoning_summary_part.done", summary_index=0, part=done["summary"][0])
            else:
                yield self._of_item("content_part.done", content_index=0, part=done["content"][0])
        else:
            yield self._of_item("function_call_arguments.done", name=item["name"], arguments=self._text)
            done = {**item, "arguments": self._text, "status": status}
        self._output[-1] = done
        yield self._event("response.output_item.done", output_index=len(self._output) - 1, item=done)

    def _reasoning_name(self, what: str) -> str:
        return f"{'reasoning_summary_text' if self._call.summarized else 'reasoning_text'}.{what}"

    def _delta(self, name: str, delta: str, **more: object) -> Json:
        return self._indexed(name, delta=delta, **more)

    def _indexed(self, name: str, **more: object) -> Json:
        """An event of a part of an item; calls have no parts."""
        if name.startswith("function"):
            return self._of_item(name, **more)
        key = "summary_index" if name.startswith("reasoning_summary") else "content_index"
        return self._of_item(name, **{key: 0}, **more)

    def _of_item(self, event: str, **more: object) -> Json:
        index = len(self._output) - 1
        return self._event(f"response.{event}", item_id=self._output[index]["id"], output_index=index, **more)

    def _event(self, event: str, **more: object) -> Json:
        self._number += 1
        return {"type": event, "sequence_number": self._number, **more}


def _status(done: Done) -> tuple[str, str | None]:
    return ("incomplete", "max_output_tokens") if done.reason == "length" else ("completed", None)


def _id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


def _message(item_id: str, content: list[Json], status: str) -> Json:
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def _function_call(item_id: str, call_id: str, name: str, arguments: str, status: str) -> Json:
    return {
        "id": item_id,
        "type": "function_call",
        "call_id": f"call_{call_id}",
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.prompt_tokens - usage.cached_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
