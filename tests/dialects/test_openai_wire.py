"""The OpenAI dialect against transcripts of the real API.

The order and the form of chunks and events are those of the API reference and of recorded answers in the official SDK's
tests; the texts are ours. Each chunk, event and whole answer must also be one of the official SDK's types.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from scripted import Scripted, app_of, calls, scored, serving, text, thoughts
from wire import post, sse

from ref_engine_app.errors import ApiError
from ref_engine_app.messages import Done, Event, Failed, Request, Start, TextDelta, TokenInfo, Usage

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("f", "g")]
RESPONSE_TOOLS = [{"type": "function", **tool["function"]} for tool in TOOLS]
SDK_RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
FIRST = {"role": "assistant", "content": "", "refusal": None}


def usage(prompt: int, completion: int, cached: int = 0, thinking: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": thinking,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat(script: Any, **more: Any) -> Any:
    answer = json.loads(post(app_of(Scripted(script)).test_client(), "/v1/chat/completions", {**ASK, **more}))
    ChatCompletion.model_validate(answer, strict=True)
    return answer


def chunks(script: Any, **more: Any) -> list[Any]:
    """The deltas of a stream, checked to be wrapped as the API does, and to end with [DONE]."""
    body = {**ASK, "stream": True, **more}
    events = sse(post(app_of(Scripted(script)).test_client(), "/v1/chat/completions", body))
    assert events[-1] == (None, "[DONE]")
    found = []
    for name, data in events[:-1]:
        assert name is None
        ChatCompletionChunk.model_validate(data, strict=True)
        head = {"id": "chatcmpl-ID", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        assert {key: data.pop(key) for key in head} == head
        assert data.pop("system_fingerprint") == "fp_ref_engine"
        found.append(data)
    return found


def choice(delta: dict[str, Any], reason: str | None = None, index: int = 0, logprobs: Any = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}]}


def test_text() -> None:
    assert chunks(text("Hello", " there")) == [
        choice(FIRST),
        choice({"content": "Hello"}),
        choice({"content": " there"}),
        choice({}, "stop"),
    ]
    answer = chat(text("Hello", " there"))
    message = {"role": "assistant", "content": "Hello there", "refusal": None}
    assert answer == {
        "id": "chatcmpl-ID",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "system_fingerprint": "fp_ref_engine",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage(11, 2),
    }


def test_usage_comes_last_and_only_where_it_is_asked_for() -> None:
    found = chunks(text("a", cached=4), stream_options={"include_usage": True})
    assert found[-1] == {"choices": [], "usage": usage(11, 1, cached=4)}
    assert all(chunk["usage"] is None for chunk in found[:-1])
    assert all("usage" not in chunk for chunk in chunks(text("a")))


def test_calls_of_tools() -> None:
    script = calls(("a1", "f", ['{"x"', ": 1}"], {"x": 1}), ("a2", "g", ["{}"], {}), before="Look:")
    assert chunks(script, tools=TOOLS) == [
        choice(FIRST),
        choice({"content": "Look:"}),
        choice({"tool_calls": [opened(0, "call_a1", "f")]}),
        choice({"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}),
        choice({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        choice({"tool_calls": [opened(1, "call_a2", "g")]}),
        choice({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}),
        choice({}, "tool_calls"),
    ]
    answer = chat(script, tools=TOOLS)["choices"][0]
    made = answer["message"]["tool_calls"]
    assert [(call["id"], call["type"], call["function"]["name"]) for call in made] == [
        ("call_a1", "function", "f"),
        ("call_a2", "function", "g"),
    ]
    assert [json.loads(call["function"]["arguments"]) for call in made] == [{"x": 1}, {}]
    assert (answer["finish_reason"], answer["message"]["content"]) == ("tool_calls", "Look:")


def opened(index: int, call_id: str, name: str) -> dict[str, Any]:
    return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}


def test_content_is_null_where_there_are_only_calls() -> None:
    assert chat(calls(("a1", "f", ["{}"], {})), tools=TOOLS)["choices"][0]["message"]["content"] is None
    assert chat(text())["choices"][0]["message"]["content"] == ""


def test_thinking_is_reasoning() -> None:
    script = thoughts(["hm", "m"], ["4"])
    assert [chunk["choices"][0]["delta"] for chunk in chunks(script)] == [
        FIRST,
        {"reasoning": "hm"},
        {"reasoning": "m"},
        {"content": "4"},
        {},
    ]
    answer = chat(script)
    assert answer["choices"][0]["message"] == {**FIRST, "content": "4", "reasoning": "hmm"}
    assert answer["usage"] == usage(7, 3, cached=4, thinking=2)


def test_log_probabilities() -> None:
    script = scored(("Foo", -0.25, [("Foo", -0.25), ("Bar", float("-inf"))]), ("é", -1.5, []))
    foo = {"token": "Foo", "logprob": -0.25, "bytes": [70, 111, 111]}
    bar = {"token": "Bar", "logprob": -9999.0, "bytes": [66, 97, 114]}
    first = {**foo, "top_logprobs": [foo, bar]}
    second = {"token": "é", "logprob": -1.5, "bytes": [195, 169], "top_logprobs": []}
    found = chunks(script, logprobs=True, top_logprobs=2)
    assert found[1] == choice({"content": "Foo"}, logprobs={"content": [first], "refusal": None})
    assert found[2] == choice({"content": "é"}, logprobs={"content": [second], "refusal": None})
    whole = chat(script, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]
    assert whole == {"content": [first, second], "refusal": None}


def test_a_token_that_is_part_of_a_character() -> None:
    """Its bytes are told; the text comes with the token that completes it."""
    halves = [TextDelta("", (TokenInfo(1, b"\xc3", -1.0),)), TextDelta("é", (TokenInfo(2, b"\xa9", -2.0),))]
    script = [Start("m", 5, 0), *halves, Done("stop", Usage(5, 0, 2), text()[-1].timings)]
    content = chat(script, logprobs=True)["choices"][0]
    assert content["message"]["content"] == "é"
    assert [token["bytes"] for token in content["logprobs"]["content"]] == [[195], [169]]
    assert [token["token"] for token in content["logprobs"]["content"]] == ["\ufffd", "\ufffd"]
    assert len(chunks(script, logprobs=True)) == 4


def two_choices(request: Request) -> list[Event]:
    assert request.n == 2
    times = text()[-1].timings
    return [
        Start("m", 11, 0, 0),
        Start("m", 11, 11, 1),
        TextDelta("b", choice=1),
        TextDelta("a", choice=0),
        Done("length", Usage(11, 11, 1), times, choice=1),
        Done("stop", Usage(11, 0, 1), times, choice=0),
    ]


def test_several_choices_share_one_prompt() -> None:
    answer = chat(two_choices, n=2)
    told = [(c["index"], c["message"]["content"], c["finish_reason"]) for c in answer["choices"]]
    assert told == [(0, "a", "stop"), (1, "b", "length")]
    assert answer["usage"] == usage(11, 2)
    found = chunks(two_choices, n=2, stream_options={"include_usage": True})
    assert [chunk["choices"][0]["index"] for chunk in found[:-1]] == [0, 1, 1, 0, 1, 0]
    assert found[-1]["usage"] == usage(11, 2)


@pytest.mark.parametrize("reason", ["stop", "length", "stop_sequence", "cancelled"])
def test_why_an_answer_ends(reason: str) -> None:
    told = "length" if reason == "length" else "stop"
    assert chat(text("a", reason=reason))["choices"][0]["finish_reason"] == told
    assert chunks(text("a", reason=reason))[-1] == choice({}, told)


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[Scripted, openai.OpenAI]]:
    """One server and one client over a socket; tests set the script."""
    service = Scripted()
    with serving(app_of(service)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        yield service, client


def test_the_sdk_raises_what_breaks_in_the_middle(live: tuple[Scripted, openai.OpenAI]) -> None:
    service, client = live
    service.script = [Start("m", 11, 0), TextDelta("a"), Failed(ApiError("internal", "broken"))]
    with pytest.raises(openai.APIError, match="broken"):
        list(client.chat.completions.create(**ASK, stream=True))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_what_breaks_in_the_middle_is_an_error_object(path: str) -> None:
    script = [Start("m", 11, 0), TextDelta("a"), Failed(ApiError("internal", "broken"))]
    ask = ASK if "chat" in path else {"model": "m", "prompt": "x"}
    events = sse(post(app_of(Scripted(script)).test_client(), path, {**ask, "stream": True}))
    error = {"message": "broken", "type": "server_error", "param": None, "code": "server_error"}
    assert events[-1] == (None, {"error": error})


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (
            ApiError("invalid", "n: must be more", "n"),
            400,
            {"message": "n: must be more", "type": "invalid_request_error", "param": "n", "code": None},
        ),
        (
            ApiError("not_found", "no model", "model"),
            404,
            {"message": "no model", "type": "invalid_request_error", "param": "model", "code": "model_not_found"},
        ),
        (
            ApiError("context_full", "too long"),
            400,
            {"message": "too long", "type": "invalid_request_error", "param": None, "code": "context_length_exceeded"},
        ),
        (
            ApiError("overloaded", "full", retry_after=2),
            503,
            {"message": "full", "type": "overloaded_error", "param": None, "code": "overloaded"},
        ),
    ],
)
def test_errors_before_the_answer_have_a_status(error: ApiError, status: int, body: dict[str, Any]) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
        ask = {"model": "m", **({"messages": ASK["messages"]} if "chat" in path else {})}
        ask |= {"prompt": "x"} if path == "/v1/completions" else {"input": "x"} if "responses" in path else {}
        for stream in (False, True):
            response = app_of(Scripted(error)).test_client().post(path, json={**ask, "stream": stream})
            assert (response.status_code, response.get_json()) == (status, {"error": body})
            assert response.headers.get("Retry-After") == ("2" if status == 503 else None)


# -- completions ----------------------------------------------------------------------------------------------


def test_completions_of_several_prompts() -> None:
    service = Scripted(lambda request: text(f"<{request.prompt}>"))
    client = app_of(service).test_client()
    ask = {"model": "m", "prompt": ["a", "b"], "max_tokens": 4}
    answer = json.loads(post(client, "/v1/completions", ask))
    Completion.model_validate(answer, strict=True)
    assert answer == {
        "id": "cmpl-ID",
        "object": "text_completion",
        "created": 0,
        "model": "m",
        "system_fingerprint": "fp_ref_engine",
        "choices": [
            {"text": "<a>", "index": 0, "logprobs": None, "finish_reason": "stop"},
            {"text": "<b>", "index": 1, "logprobs": None, "finish_reason": "stop"},
        ],
        "usage": usage(22, 2),
    }
    events = sse(post(client, "/v1/completions", {**ask, "stream": True, "stream_options": {"include_usage": True}}))
    told = [(c["text"], c["index"], c["finish_reason"]) for _, data in events[:-2] for c in data["choices"]]
    assert told == [("<a>", 0, None), ("", 0, "stop"), ("<b>", 1, None), ("", 1, "stop")]
    assert events[-2][1]["usage"] == usage(22, 2) and events[-1] == (None, "[DONE]")
    ids = json.loads(post(client, "/v1/completions", {"model": "m", "prompt": [5, 6]}))
    assert ids["choices"][0]["text"] == "<(5, 6)>"
    assert service.requests[-1].max_tokens == 16  # the real API's default


def test_log_probabilities_of_completions() -> None:
    script = scored(("Foo", -0.25, [("Foo", -0.25), ("Bar", -2.0)]), (" b", -1.5, [(" b", -1.5)]))
    client = app_of(Scripted(script)).test_client()
    ask = {"model": "m", "prompt": "x", "logprobs": 2}
    whole = json.loads(post(client, "/v1/completions", ask))["choices"][0]["logprobs"]
    assert whole == {
        "tokens": ["Foo", " b"],
        "token_logprobs": [-0.25, -1.5],
        "top_logprobs": [{"Foo": -0.25, "Bar": -2.0}, {" b": -1.5}],
        "text_offset": [0, 3],
    }
    events = sse(post(client, "/v1/completions", {**ask, "stream": True}))
    pieces = [data["choices"][0]["logprobs"] for _, data in events[:2]]
    assert [piece["tokens"] for piece in pieces] == [["Foo"], [" b"]]
    assert [piece["text_offset"] for piece in pieces] == [[0], [3]]


# -- embeddings -----------------------------------------------------------------------------------------------


def test_embeddings() -> None:
    client = app_of(Scripted()).test_client()
    answer = json.loads(post(client, "/v1/embeddings", {"model": "m", "input": ["a", "b"]}))
    assert answer["data"][1] == {"object": "embedding", "index": 1, "embedding": [0.6, 0.8, 1.0]}
    assert answer["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    packed = json.loads(post(client, "/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "base64"}))
    assert packed["data"][0]["embedding"] == "mpkZP83MTD8AAAAA"  # 0.6, 0.8, 0 as float32: 3f19999a 3f4ccccd 0


# -- responses ------------------------------------------------------------------------------------------------


def response_events(script: Any, **more: Any) -> list[Any]:
    body = {"model": "m", "input": "hi", "stream": True, **more}
    events = sse(post(app_of(Scripted(script)).test_client(), "/v1/responses", body))
    for number, (name, data) in enumerate(events):
        assert name == data["type"]
        assert data["sequence_number"] == number
        SDK_RESPONSE_EVENT.validate_python(data, strict=True)
    return [data for _, data in events]


def names(events: list[Any]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_response_of_text() -> None:
    events = response_events(text("Hello", " there"))
    assert names(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in events[4:6]] == ["Hello", " there"]
    assert events[6]["text"] == "Hello there"
    part = {"type": "output_text", "text": "Hello there", "annotations": [], "logprobs": []}
    item = {"id": "msg_ID", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    assert events[8]["item"] == item
    final = events[9]["response"]
    assert final["output"] == [item]
    assert (final["status"], final["error"], final["incomplete_details"]) == ("completed", None, None)
    assert final["usage"] == {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 11},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 13,
    }
    assert events[0]["response"]["status"] == "in_progress" and events[0]["response"]["output"] == []


def test_a_response_with_reasoning_and_calls() -> None:
    made = calls(("a1", "f", ['{"x"', ": 1}"], {"x": 1}))
    script = [*thoughts(["hm"], [])[:-1], *made[1:]]
    events = response_events(script, tools=RESPONSE_TOOLS)
    assert names(events)[2:] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    reasoning, call = events[-1]["response"]["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm"}] and reasoning["summary"] == []
    assert call == {
        "id": "fc_ID",
        "type": "function_call",
        "call_id": "call_a1",
        "name": "f",
        "arguments": '{"x": 1}',
        "status": "completed",
    }
    assert [event["output_index"] for event in events if "output_index" in event] == [0] * 6 + [1] * 5


def test_a_summary_is_the_reasoning_itself_where_it_is_asked_for() -> None:
    events = response_events(thoughts(["hm"], ["4"]), reasoning={"summary": "auto"})
    assert names(events)[2:8] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert events[-1]["response"]["output"][0]["summary"] == [{"type": "summary_text", "text": "hm"}]


def test_sealed_reasoning_comes_back_with_the_next_turn() -> None:
    service = Scripted(thoughts(["hm", "m"], ["4"]))
    client = app_of(service).test_client()
    sealed = {"include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}}
    answer = json.loads(post(client, "/v1/responses", {"model": "m", "input": "hi", **sealed}))
    item = {**answer["output"][0], "summary": []}
    history = [{"role": "user", "content": "hi"}, item, answer["output"][1], {"role": "user", "content": "+1"}]
    post(client, "/v1/responses", {"model": "m", "input": history})
    message = service.requests[1].messages[1]
    assert (message.role, getattr(message.blocks[0], "text", ""), message.text) == ("assistant", "hmm", "4")


def test_a_response_that_is_cut_off() -> None:
    events = response_events(text("a", reason="length"))
    assert names(events)[-2:] == ["output_item.done", "incomplete"]
    assert events[-2]["item"]["status"] == "incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_response_that_fails() -> None:
    events = response_events([Start("m", 1, 0), TextDelta("a"), Failed(ApiError("internal", "broken"))])
    assert names(events)[-1] == "failed"
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": "broken"}


SCRIPTS: dict[str, list[Event]] = {
    "text": text("Hello", " there"),
    "nothing": text(),
    "length": text("a", reason="length"),
    "thinking": thoughts(["hm", "m"], ["4", "2"]),
    "calls": calls(("a1", "f", ['{"x"', ": 1}"], {"x": 1}), ("a2", "g", ["{}"], {}), before="Look: "),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_whole_answer_is_the_fold_of_the_stream(name: str, live: tuple[Scripted, openai.OpenAI]) -> None:
    """The official SDK's accumulation of the stream is the answer without one."""
    service, client = live
    service.script = SCRIPTS[name]
    ask: dict[str, Any] = {**ASK, "tools": TOOLS}
    whole = client.chat.completions.create(**ask)
    with client.chat.completions.stream(**ask, stream_options={"include_usage": True}) as chat_stream:
        last = None
        for event in chat_stream:
            last = event.snapshot if event.type == "chunk" else last
    assert last is not None
    assert bare(last) == bare(whole)
    respond: dict[str, Any] = {"model": "m", "input": "hi", "tools": RESPONSE_TOOLS}
    response = client.responses.create(**respond)
    Response.model_validate(response.model_dump(), strict=True)
    finals = [e.response for e in client.responses.create(**respond, stream=True) if hasattr(e, "response")]
    first, second = (r.model_dump(exclude_none=True) for r in (response, finals[-1]))
    for told in (first, second):
        for part in [told, *told["output"]]:
            for key in ("id", "created_at", "completed_at"):
                part.pop(key, None)
    assert first == second


def bare(completion: Any) -> Any:
    """A completion without what differs by nature: ids, times, and what the SDK itself adds."""
    told = completion.model_dump(exclude_none=True, exclude={"id", "created", "object"})
    for one in told["choices"]:
        one["message"].pop("parsed", None)
        for call in one["message"].get("tool_calls", []):
            call.pop("index", None)
            call["function"].pop("parsed_arguments", None)
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return told
