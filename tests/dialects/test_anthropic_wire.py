"""The Anthropic dialect against transcripts of the real API.

The order and the form of the events are those of the API's streaming reference and of recorded answers in the official
SDK's tests (basic_response, tool_use_response, incomplete_partial_json_response); the texts are ours. Each event must
also be one of the official SDK's types.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter
from scripted import Scripted, app_of, calls, serving, text, thoughts
from wire import post, sse

from ref_engine_app.errors import ApiError
from ref_engine_app.messages import Done, Event, Failed, Start, TextDelta, ToolDelta, ToolStart, Usage

ASK = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
TOOLS = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {}}}]
NOTHING_CACHED = {"input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
SDK_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def start(usage: dict[str, int]) -> tuple[str, Any]:
    message = {
        "id": "msg_ID",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 0},
    }
    return "message_start", {"type": "message_start", "message": message}


def block(index: int, content: dict[str, Any]) -> tuple[str, Any]:
    return "content_block_start", {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, **of: str) -> tuple[str, Any]:
    return "content_block_delta", {"type": "content_block_delta", "index": index, "delta": of}


def stop(index: int) -> tuple[str, Any]:
    return "content_block_stop", {"type": "content_block_stop", "index": index}


def end(reason: str, usage: dict[str, int], output: int, sequence: str | None = None, thinking: int = 0) -> list[Any]:
    told = {**usage, "output_tokens": output, "output_tokens_details": {"thinking_tokens": thinking}}
    body = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": sequence}, "usage": told}
    return [("message_delta", body), ("message_stop", {"type": "message_stop"})]


PING = ("ping", {"type": "ping"})
TEXT = {"type": "text", "text": ""}
PARIS = [
    "{\"locati", "on\": \"P", "ar", "is\"}",
]  # fmt: skip


def transcript(script: list[Event] | ApiError, **more: Any) -> list[tuple[str | None, Any]]:
    """The events of a stream, each checked to be one of the SDK's types."""
    body = {**ASK, "stream": True, **more}
    events = sse(post(app_of(Scripted(script)).test_client(), "/v1/messages", body))
    for name, data in events:
        assert name == data["type"]
        if name not in ("ping", "error"):
            SDK_EVENT.validate_python(data, strict=True)
    return events


def test_text() -> None:
    assert transcript(text("Hello", " there", "!")) == [
        start(NOTHING_CACHED),
        block(0, TEXT),
        PING,
        delta(0, type="text_delta", text="Hello"),
        delta(0, type="text_delta", text=" there"),
        delta(0, type="text_delta", text="!"),
        stop(0),
        *end("end_turn", NOTHING_CACHED, 3),
    ]


def test_a_call_of_a_tool_after_text() -> None:
    script = calls(("a1", "get_weather", PARIS, {"location": "Paris"}), before="I'll look.")
    usage = {**NOTHING_CACHED, "input_tokens": 20}
    assert transcript(script, tools=TOOLS) == [
        start(usage),
        block(0, TEXT),
        PING,
        delta(0, type="text_delta", text="I'll look."),
        stop(0),
        block(1, {"type": "tool_use", "id": "toolu_a1", "name": "get_weather", "input": {}}),
        delta(1, type="input_json_delta", partial_json=""),
        *(delta(1, type="input_json_delta", partial_json=piece) for piece in PARIS),
        stop(1),
        *end("tool_use", usage, 9),
    ]


def test_thinking_is_signed_when_its_block_ends() -> None:
    events = transcript(thoughts(["Let me", " see."], ["4"]), thinking={"type": "adaptive"})
    usage = {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4}
    signature = events[5][1]["delta"]["signature"]
    assert events == [
        start(usage),
        block(0, {"type": "thinking", "thinking": "", "signature": ""}),
        PING,
        delta(0, type="thinking_delta", thinking="Let me"),
        delta(0, type="thinking_delta", thinking=" see."),
        delta(0, type="signature_delta", signature=signature),
        stop(0),
        block(1, TEXT),
        delta(1, type="text_delta", text="4"),
        stop(1),
        *end("end_turn", usage, 3, thinking=2),
    ]
    assert len(signature) > 10


def test_omitted_thinking_comes_back_from_its_signature() -> None:
    """`display: omitted` shows nothing of the thinking, and the next turn has it all the same."""
    service = Scripted(thoughts(["Let me", " see."], ["4"]))
    client = app_of(service).test_client()
    thinking = {"type": "adaptive", "display": "omitted"}
    answer = json.loads(post(client, "/v1/messages", {**ASK, "thinking": thinking}))
    assert [part["type"] for part in answer["content"]] == ["thinking", "text"]
    assert answer["content"][0]["thinking"] == ""
    history = [*ASK["messages"], {"role": "assistant", "content": answer["content"]}, {"role": "user", "content": "+1"}]
    post(client, "/v1/messages", {**ASK, "messages": history})
    kept = service.requests[1].messages[1].blocks[0]
    assert getattr(kept, "text", "") == "Let me see."
    names = [name for name, _ in sse(post(client, "/v1/messages", {**ASK, "thinking": thinking, "stream": True}))]
    assert names[:5] == ["message_start", "content_block_start", "ping", "content_block_delta", "content_block_stop"]


@pytest.mark.parametrize(
    ("reason", "sequence", "told"),
    [("length", None, "max_tokens"), ("stop_sequence", "END", "stop_sequence"), ("cancelled", None, "end_turn")],
)
def test_why_an_answer_ends(reason: str, sequence: str | None, told: str) -> None:
    script = text("a", reason=reason, stop_sequence=sequence)
    events = transcript(script, stop_sequences=["END"])
    assert events[-2:] == end(told, NOTHING_CACHED, 1, sequence)
    if sequence is not None:  # one that only the model's own parameters have
        assert transcript(script, stop_sequences=["other"])[-2:] == end("end_turn", NOTHING_CACHED, 1)


def test_a_call_that_is_cut_off_closes_its_block() -> None:
    pieces = ['{"lines": ["a', "b"]
    script = [
        Start("m", 11, 0),
        ToolStart(0, "a1", "make_file"),
        *(ToolDelta(0, piece) for piece in pieces),
        Done("length", Usage(11, 0, 5), text()[-1].timings),
    ]
    assert transcript(script, tools=TOOLS)[1:] == [
        block(0, {"type": "tool_use", "id": "toolu_a1", "name": "make_file", "input": {}}),
        PING,
        delta(0, type="input_json_delta", partial_json=""),
        *(delta(0, type="input_json_delta", partial_json=piece) for piece in pieces),
        stop(0),
        *end("max_tokens", NOTHING_CACHED, 5),
    ]


def test_two_calls_are_two_blocks() -> None:
    made = [("a1", "f", ["{}"], {}), ("a2", "g", [], {})]
    names = [name for name, _ in transcript(calls(*made), tools=TOOLS)]
    call = ["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"]
    second = [call[0], call[1], call[3]]
    assert names == ["message_start", call[0], "ping", *call[1:], *second, "message_delta", "message_stop"]


def test_what_breaks_in_the_middle_is_an_error_event() -> None:
    failed = Failed(ApiError("overloaded", "shutting down"))
    events = transcript([Start("m", 11, 0), TextDelta("a"), failed])
    told = {"type": "error", "error": {"type": "overloaded_error", "message": "shutting down"}}
    assert events[-1] == ("error", told)
    assert [name for name, _ in events[:-1]] == ["message_start", "content_block_start", "ping", "content_block_delta"]


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("invalid", 400, "invalid_request_error"),
        ("unauthorized", 401, "authentication_error"),
        ("forbidden", 403, "permission_error"),
        ("not_found", 404, "not_found_error"),
        ("too_large", 413, "request_too_large"),
        ("overloaded", 503, "overloaded_error"),
        ("internal", 500, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_before_the_answer_have_a_status(kind: Any, status: int, name: str, stream: bool) -> None:
    service = Scripted(ApiError(kind, "what happened", retry_after=3 if kind == "overloaded" else None))
    response = app_of(service).test_client().post("/v1/messages", json={**ASK, "stream": stream})
    assert response.status_code == status
    request_id = response.headers["request-id"]
    body = {"type": "error", "error": {"type": name, "message": "what happened"}, "request_id": request_id}
    assert response.get_json() == body
    assert response.headers.get("Retry-After") == ("3" if kind == "overloaded" else None)


def test_marked_prompts_count_as_cache_creation() -> None:
    marked = [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}]
    (_, first), *_ = transcript(text("a", cached=4), messages=marked)
    usage = first["message"]["usage"]
    assert (usage["input_tokens"], usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]) == (0, 7, 4)


SCRIPTS: dict[str, list[Event]] = {
    "text": text("Hello", " there"),
    "nothing": text(),
    "stop sequence": text("a", reason="stop_sequence", stop_sequence="X"),
    "thinking": thoughts(["hm", "m"], ["4", "2"]),
    "calls": calls(("a1", "f", PARIS, {"location": "Paris"}), ("a2", "g", [], {}), before="Look: "),
}


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[Scripted, anthropic.Anthropic]]:
    """One server and one client over a socket; tests set the script."""
    service = Scripted()
    with serving(app_of(service)) as url, anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client:
        yield service, client


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_whole_answer_is_the_fold_of_the_stream(name: str, live: tuple[Scripted, anthropic.Anthropic]) -> None:
    """The official SDK's accumulation of the stream is the message without one."""
    service, client = live
    service.script = SCRIPTS[name]
    ask: dict[str, Any] = {**ASK, "tools": [{**TOOLS[0], "name": tool} for tool in ("f", "g")]}
    ask["stop_sequences"] = ["X"]
    whole = client.messages.create(**ask)
    with client.messages.stream(**ask) as stream:
        folded = stream.get_final_message()
    Message.model_validate(whole.model_dump(), strict=True)
    first, second = (message.model_dump(exclude_none=True, exclude={"id"}) for message in (whole, folded))
    assert first == second


def test_the_sdk_raises_errors_of_their_kind(live: tuple[Scripted, anthropic.Anthropic]) -> None:
    service, client = live
    service.script = ApiError("overloaded", "full", retry_after=1)
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(**ASK)
    assert (caught.value.status_code, caught.value.type) == (503, "overloaded_error")
    assert caught.value.request_id is not None and caught.value.request_id.startswith("req_")
    service.script = [Start("m", 11, 0), TextDelta("a"), Failed(ApiError("internal", "broken"))]
    with pytest.raises(anthropic.APIStatusError, match="broken"):
        list(client.messages.create(**ASK, stream=True))


def test_models_page_by_page(live: tuple[Scripted, anthropic.Anthropic]) -> None:
    service, client = live
    assert [model.id for model in client.models.list(limit=2)] == service.names  # the SDK asks for the second page
    first = client.models.list(limit=2)
    assert (first.has_more, first.first_id, first.last_id) == (True, "newest", "m")
    before = client.models.list(limit=1, before_id="hf:owner/oldest")
    assert ([model.id for model in before.data], before.has_more) == (["m"], True)
    assert client.models.list(lifecycle=["retired"]).data == []
    assert client.models.retrieve("hf:owner/oldest").display_name == "hf:owner/oldest"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("no-such")
    with pytest.raises(anthropic.BadRequestError, match="after_id"):
        client.models.list(after_id="no-such")
