"""The Ollama dialect against transcripts of Ollama's own.

The lines are those of the examples in Ollama's API reference and of the structs that it writes (api/types.go); the
texts are ours. What the official SDK makes of them is checked over a socket.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from scripted import Scripted, app_of, calls, scored, serving, text, thoughts
from wire import clean, ndjson, post

from ref_engine_app.errors import ApiError
from ref_engine_app.messages import (
    Event,
    Failed,
    JsonSchema,
    Start,
    TextBlock,
    TextDelta,
    Thinking,
    ToolCall,
    ToolResult,
)
from ref_engine_app.ollama.options import duration, options

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
GENERATE = {"model": "m", "prompt": "hi"}
METRICS = {
    "total_duration": 2_000_000_000,
    "load_duration": 500_000_000,
    "prompt_eval_count": 11,
    "prompt_eval_duration": 250_000_000,
    "eval_duration": 1_250_000_000,
}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


def lines(script: Any, path: str, body: dict[str, Any]) -> list[Any]:
    return ndjson(post(app_of(Scripted(script)).test_client(), path, body))


def whole(script: Any, path: str, body: dict[str, Any]) -> Any:
    return json.loads(post(app_of(Scripted(script)).test_client(), path, {**body, "stream": False}))


def said(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    line = {"model": "m", "created_at": 0, "message": {"role": "assistant", "content": "", **message}, "done": False}
    return {**line, **more}


def test_a_chat() -> None:
    script = text("Hello", " there", reason="length")
    end = said({}, done=True, done_reason="length", eval_count=2, **METRICS)
    assert lines(script, "/api/chat", CHAT) == [said({"content": "Hello"}), said({"content": " there"}), end]
    assert whole(script, "/api/chat", CHAT) == {**end, "message": {"role": "assistant", "content": "Hello there"}}


def test_a_chat_with_thinking() -> None:
    found = lines(thoughts(["hm"], ["4"]), "/api/chat", {**CHAT, "think": True})
    assert [line["message"] for line in found] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "4"},
        {"role": "assistant", "content": ""},
    ]
    message = whole(thoughts(["h", "m"], ["4"]), "/api/chat", CHAT)["message"]
    assert message == {"role": "assistant", "content": "4", "thinking": "hm"}


def test_calls_come_in_one_piece() -> None:
    script = calls(("a1", "f", ['{"x"', ": 1}"], {"x": 1}), ("a2", "f", ["{}"], {}))
    made = [
        {"id": "call_a1", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
        {"id": "call_a2", "function": {"index": 1, "name": "f", "arguments": {}}},
    ]
    found = lines(script, "/api/chat", {**CHAT, "tools": [TOOL]})
    assert [line["message"].get("tool_calls") for line in found] == [made[:1], made[1:], None]
    assert found[-1]["done_reason"] == "stop"
    assert whole(script, "/api/chat", {**CHAT, "tools": [TOOL]})["message"]["tool_calls"] == made


def test_generate() -> None:
    script = text("Hello", " there", reason="stop_sequence", stop_sequence="X")
    head = {"model": "m", "created_at": 0}
    end = {
        **head,
        "response": "",
        "done": True,
        "done_reason": "stop",
        "context": [1, 2, 3],
        "eval_count": 2,
        **METRICS,
    }
    assert lines(script, "/api/generate", GENERATE) == [
        {**head, "response": "Hello", "done": False},
        {**head, "response": " there", "done": False},
        end,
    ]
    assert whole(script, "/api/generate", GENERATE) == {**end, "response": "Hello there"}
    assert "context" not in whole(script, "/api/generate", {**GENERATE, "raw": True})


def test_log_probabilities() -> None:
    script = scored(("Foo", -0.25, [("Bar", float("-inf"))]), ("!", -1.0, []))
    foo = {"token": "Foo", "logprob": -0.25, "bytes": [70, 111, 111]}
    bar = {"token": "Bar", "logprob": -9999.0, "bytes": [66, 97, 114]}
    told = [{**foo, "top_logprobs": [bar]}, {"token": "!", "logprob": -1.0, "bytes": [33]}]
    ask = {"logprobs": True, "top_logprobs": 1}
    for path, body in (("/api/chat", CHAT), ("/api/generate", GENERATE)):
        assert whole(script, path, {**body, **ask})["logprobs"] == told
        assert [line.get("logprobs") for line in lines(script, path, {**body, **ask})] == [told[:1], told[1:], None]


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), (0, "unload"), ("0", "unload"), ("5m", "load")])
def test_an_empty_request_loads_or_unloads(keep_alive: Any, reason: str) -> None:
    service = Scripted()
    client = app_of(service).test_client()
    more = {} if keep_alive is None else {"keep_alive": keep_alive}
    answer = json.loads(post(client, "/api/chat", {"model": "m", "messages": [], **more}))
    assert answer == said({}, done=True, done_reason=reason)
    answer = json.loads(post(client, "/api/generate", {"model": "m", **more}))
    assert answer == {"model": "m", "created_at": 0, "response": "", "done": True, "done_reason": reason}
    assert json.loads(post(client, "/api/embed", {"model": "m", "input": [], **more})) == {
        "model": "m",
        "embeddings": [],
    }
    assert json.loads(post(client, "/api/embeddings", {"model": "m", **more})) == {"embedding": []}
    seconds = {None: None, 0: 0.0, "0": 0.0, "5m": 300.0}[keep_alive]
    assert service.loaded == [("m", seconds)] * 4 and service.requests == []


def test_embeddings() -> None:
    client = app_of(Scripted()).test_client()
    answer = json.loads(post(client, "/api/embed", {"model": "m", "input": ["a", "b"]}))
    assert answer == {
        "model": "m",
        "embeddings": [[0.6, 0.8, 0.0], [0.6, 0.8, 1.0]],
        "total_duration": 500_000_000,
        "load_duration": 250_000_000,
        "prompt_eval_count": 8,
    }
    assert json.loads(post(client, "/api/embeddings", {"model": "m", "prompt": "a"})) == {"embedding": [0.6, 0.8, 0.0]}


def test_errors() -> None:
    for error, status in ((ApiError("not_found", "no m"), 404), (ApiError("overloaded", "full", retry_after=2), 503)):
        client = app_of(Scripted(error)).test_client()
        for path, body in (("/api/chat", CHAT), ("/api/generate", GENERATE)):
            for stream in (False, True):
                response = client.post(path, json={**body, "stream": stream})
                assert (response.status_code, response.get_json()) == (status, {"error": error.message})
    broken = [Start("m", 1, 0), TextDelta("a"), Failed(ApiError("internal", "broken"))]
    assert lines(broken, "/api/chat", CHAT)[-1] == {"error": "broken"}


def test_the_time_is_written_as_go_does() -> None:
    client = app_of(Scripted(text())).test_client()
    line = client.post("/api/chat", json={**CHAT, "stream": False}).get_json()
    assert clean(json.dumps(line["created_at"])) and line["created_at"][10] == "T" and line["created_at"].endswith("Z")


# -- what a request becomes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5m", 300.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("100ms", 0.1), ("0", 0.0), ("+3s", 3.0), (".5s", 0.5),
        ("-1", None), ("-1s", math.inf), (-1, math.inf), (10, 10.0), (0.5, 0.5), ("", None), ("5", None), ("5 m", None),
        ("m", None), ("1d", None), ("5m3", None), ("1e3s", None), (True, None), ([], None), ("9" * 200 + "s", None),
    ],
)  # fmt: skip
def test_durations_are_those_of_go(value: Any, seconds: float | None) -> None:
    """time.ParseDuration of Go: a number needs a unit, and 0 is the only one without."""
    if seconds is None:
        with pytest.raises(ApiError, match="keep_alive"):
            duration(value, "keep_alive")
    else:
        assert duration(value, "keep_alive") == pytest.approx(seconds)


def test_options_become_sampling_parameters() -> None:
    given = {"temperature": 0, "seed": -5, "top_k": 3.0, "num_predict": -2, "num_ctx": 64, "stop": "X", "num_gpu": 1}
    found = options({**given, "low_vram": None}, "options")
    assert dict(found.sampling) == {"temperature": 0, "seed": 2**64 - 5, "top_k": 3}
    assert (found.max_tokens, found.n_ctx, found.stop) == (2**31 - 1, 64, ("X",))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "1"), ("temperature", True), ("top_p", 1.5), ("top_k", 1.5), ("seed", 2**64), ("min_p", -0.1),
        ("num_predict", -3), ("num_ctx", 0), ("stop", [""]), ("stop", 5), ("num_gpu", "all"), ("numa", 1),
        ("repeat_last_n", -2), ("mirostat", 3), ("no_such_option", 1),
    ],
)  # fmt: skip
def test_bad_options_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ApiError, match=rf"options\.{name}"):
        options({name: value}, "options")


def test_a_conversation_with_tools() -> None:
    """The second request of the tool example in Ollama's documentation."""
    service = Scripted(text("22°C"))
    call = {"type": "function", "function": {"index": 0, "name": "f", "arguments": {"city": "Rome"}}}
    history = [
        {"role": "User", "content": "how warm?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_name": "f", "content": "22"},
    ]
    ask = {"model": "m", "messages": history, "tools": [TOOL], "format": {"type": "object"}, "think": "max"}
    post(app_of(service).test_client(), "/api/chat", ask)
    (request,) = service.requests
    assert [message.role for message in request.messages] == ["user", "assistant", "tool"]
    assert request.messages[1].blocks == (ToolCall("", "f", {"city": "Rome"}),)
    assert request.messages[2].blocks == (ToolResult("", "22", name="f"),)
    assert request.tools[0].description == "d"
    assert request.output == JsonSchema({"type": "object"})
    assert request.thinking == Thinking(True, None, "high")
    assert request.truncate and request.stream and not request.prefill


def test_generate_makes_a_conversation_or_a_raw_prompt() -> None:
    service = Scripted(text("x"))
    client = app_of(service).test_client()
    post(client, "/api/generate", {**GENERATE, "system": "s", "context": [4, 5], "template": "{{ 1 }}"})
    post(client, "/api/generate", {**GENERATE, "raw": True})
    post(client, "/api/generate", {**GENERATE, "suffix": "end"})
    post(client, "/api/chat", {**CHAT, "messages": [*CHAT["messages"], {"role": "assistant", "content": "The"}]})
    chat, raw, fill, prefill = service.requests
    assert [(m.role, m.blocks) for m in chat.messages] == [("system", (TextBlock("s"),)), ("user", (TextBlock("hi"),))]
    assert (chat.context, chat.template, chat.prompt) == ((4, 5), "{{ 1 }}", None)
    assert (raw.prompt, raw.suffix, raw.messages) == ("hi", None, ())
    assert (fill.prompt, fill.suffix) == ("hi", "end")
    assert prefill.prefill and prefill.messages[-1].text == "The"


# -- the official SDK -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[Scripted, ollama.Client]]:
    service = Scripted()
    with serving(app_of(service)) as url, ollama.Client(host=url) as client:
        yield service, client


SCRIPTS: dict[str, list[Event]] = {
    "text": text("Hello", " there"),
    "nothing": text(),
    "thinking": thoughts(["hm", "m"], ["4", "2"]),
    "calls": calls(("a1", "f", ['{"x"', ": 1}"], {"x": 1}), ("a2", "f", ["{}"], {}), before="Look: "),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_whole_answer_is_the_fold_of_the_stream(name: str, live: tuple[Scripted, ollama.Client]) -> None:
    service, client = live
    service.script = SCRIPTS[name]
    answer = client.chat(**CHAT, tools=[TOOL])
    parts = list(client.chat(**CHAT, tools=[TOOL], stream=True))
    assert "".join(part.message.content or "" for part in parts) == answer.message.content
    assert "".join(part.message.thinking or "" for part in parts) == (answer.message.thinking or "")
    made = [call for part in parts for call in part.message.tool_calls or []]
    assert made == list(answer.message.tool_calls or [])
    apart = {"message", "created_at"}
    assert parts[-1].model_dump(exclude=apart) == answer.model_dump(exclude=apart)
    generated = client.generate(**GENERATE)
    pieces = list(client.generate(**GENERATE, stream=True))
    assert "".join(piece.response or "" for piece in pieces) == generated.response


def test_the_sdk_sends_functions_and_schemas(live: tuple[Scripted, ollama.Client]) -> None:
    service, client = live
    service.script = text("x")

    def add(a: int, b: int = 2) -> int:
        """Add two numbers.

        Args:
            a: the first
            b: the second
        """
        return a + b

    client.chat(**CHAT, tools=[add], options=ollama.Options(temperature=0, stop=["X"]), keep_alive="1m")
    request = service.requests[-1]
    assert request.tools[0].name == "add"
    assert set(request.tools[0].parameters["properties"]) == {"a", "b"}
    assert (request.stop, request.keep_alive, dict(request.sampling)) == (("X",), 60.0, {"temperature": 0})
    with pytest.raises(ollama.ResponseError, match="not found") as caught:
        client.chat(model="no-such", messages=CHAT["messages"])
    assert caught.value.status_code == 404
