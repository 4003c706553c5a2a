"""Malformed requests by the hundred: a 4xx in the dialect's own form, and the next request is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from malformed import BODIES, GOOD, in_shape, mutants
from scripted import Scripted, app_of, text

from ref_engine_app.anthropic import incoming
from ref_engine_app.errors import ApiError
from ref_engine_app.fields import Invalid, parse_json
from ref_engine_app.ollama import incoming as ollama_incoming
from ref_engine_app.openai import chat_request, responses_request

MUTANTS = 250  # of each endpoint, besides those with something left out or put in


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return app_of(Scripted(text("fine"))).test_client()


def send(client: FlaskClient, path: str, body: bytes) -> int:
    response = client.post(path, data=body, content_type="application/json")
    text = response.get_data(as_text=True)
    assert response.status_code < 500, (body[:300], text)
    if response.status_code >= 400:
        assert response.content_type.startswith("application/json")
        assert in_shape(path, response.get_json()), (body[:300], text)
    return response.status_code


@pytest.mark.parametrize("path", GOOD)
def test_the_good_request_is_good(client: FlaskClient, path: str) -> None:
    response = client.post(path, json=GOOD[path])
    assert response.status_code == 200, response.get_data(as_text=True)


@pytest.mark.parametrize("path", GOOD)
def test_bodies_that_are_no_request(client: FlaskClient, path: str) -> None:
    assert [send(client, path, body) for body in BODIES] == [400] * len(BODIES)
    assert client.post(path, json=GOOD[path]).status_code == 200


@pytest.mark.parametrize("path", GOOD)
def test_one_thing_wrong(client: FlaskClient, path: str) -> None:
    statuses = [send(client, path, body) for body in mutants(GOOD[path], MUTANTS, seed=1)]
    assert set(statuses) <= {200, 400, 404}
    assert statuses.count(400) > len(statuses) / 3
    assert client.post(path, json=GOOD[path]).status_code == 200


@pytest.mark.parametrize(
    "name", ["no-such", "../../etc/passwd", "..", "a/b/c/d", "%2e%2e%2f", "x" * 300, "m\n", "Ünicode"]
)
@pytest.mark.parametrize("path", GOOD)
def test_models_that_are_not_there(client: FlaskClient, path: str, name: str) -> None:
    assert send(client, path, json.dumps({**GOOD[path], "model": name}).encode()) == 404


@pytest.mark.parametrize("name", ["no-such", "../../etc/passwd", "%2e%2e/%2e%2e", "a" * 3000, "%00", "%ff"])
@pytest.mark.parametrize("version", [{}, {"anthropic-version": "2023-06-01"}])
def test_model_addresses(client: FlaskClient, name: str, version: dict[str, str]) -> None:
    response = client.get(f"/v1/models/{name}", headers=version)
    assert response.status_code in (400, 404)
    assert in_shape("/v1/messages" if version else "/v1/models", response.get_json())


@pytest.mark.parametrize("path", [*GOOD, "/v1/no/such", "/v1/messages/batches", "/api/no-such"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_wrong_methods_and_addresses(client: FlaskClient, path: str, method: str) -> None:
    response = client.open(path, method=method)
    assert response.status_code == (405 if path in GOOD else 404)
    assert in_shape(path, response.get_json())


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=9999999999999", "after_id=zz", "foo=1"])
def test_queries(client: FlaskClient, query: str) -> None:
    response = client.get(f"/v1/models?{query}", headers={"anthropic-version": "2023-06-01"})
    assert response.status_code == 400 and in_shape("/v1/messages", response.get_json())
    assert client.get(f"/v1/models?{query}").status_code == 400


def test_depth_is_counted_as_documented() -> None:
    assert parse_json(b"[" * 99 + b"]" * 99) is not None
    with pytest.raises(Invalid, match="nested deeper than 100"):
        parse_json(b"[" * 101 + b"]" * 101)
    with pytest.raises(Invalid, match="arguments: is nested deeper"):
        parse_json(b'{"a":' * 5000 + b"1" + b"}" * 5000, "arguments")


# -- requests whose fields are right one by one ---------------------------------------------------------------

USER = {"role": "user", "content": "hi"}
CLAUDE = {"model": "m", "max_tokens": 2000, "messages": [USER]}
CLAUDE_TOOL = {"name": "f", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}


def turn(role: str, *blocks: Any) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"messages": []}, "messages", "1 to 100000"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages.0.role", "first message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "first message"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages.1.role", "must be one of"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content", "not be empty"),
        ({"messages": [USER, {"role": "assistant", "content": ""}, USER]}, "messages.1.content", "not be empty"),
        ({"messages": [turn("user", {"type": "text", "text": ""})]}, "messages.0.content.0.text", "not be empty"),
        ({"messages": [USER, {"role": "assistant", "content": "a \n"}]}, "messages.1.content", "white space"),
        ({"messages": [turn("user", USE)]}, "messages.0.content.0.type", "must be one of"),
        ({"messages": [turn("user", RESULT)]}, "messages.0.content", "no tool_use"),
        ({"messages": [USER, turn("assistant", USE)]}, "messages.1.content", "no tool_result"),
        ({"messages": [USER, turn("assistant", USE), USER]}, "messages.2.content", "lacks a tool_result"),
        ({"messages": [USER, turn("assistant", USE, USE), turn("user", RESULT)]}, "messages.1.content", "twice"),
        (
            {"messages": [USER, turn("assistant", USE), turn("user", RESULT, RESULT)]},
            "messages.2.content",
            "twice",
        ),
        ({"messages": [turn("user", {"type": "server_tool_use"})]}, "messages.0.content.0.type", "not supported"),
        (
            {"messages": [turn("user", {**IMAGE, "source": {"type": "x"}})]},
            "messages.0.content.0.source.type",
            "must be",
        ),
        (
            {"messages": [turn("user", {"type": "document", "source": {"type": "url", "url": "http://x"}})]},
            "messages.0.content.0.source.type",
            "not supported",
        ),
        ({"system": [IMAGE]}, "system.0.type", "must be one of text"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type", "not supported"),
        ({"tools": [CLAUDE_TOOL, CLAUDE_TOOL]}, "tools.1.name", "twice"),
        ({"tools": [{**CLAUDE_TOOL, "name": "a b"}]}, "tools.0.name", "must match"),
        ({"tools": [{"name": "f", "input_schema": {"type": "string"}}]}, "tools.0.input_schema.type", "object"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "needs tools"),
        ({"tools": [CLAUDE_TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name", "none of the"),
        ({"tools": [CLAUDE_TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name", "required"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", "required"),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "thinking.budget_tokens", "from 1024"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens", "less than max_tokens"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type", "not supported"),
        (
            {"thinking": {"type": "adaptive"}, "tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}},
            "tool_choice.type",
            "while thinking",
        ),
        (
            {"thinking": {"type": "adaptive"}, "messages": [USER, {"role": "assistant", "content": "a"}]},
            "messages",
            "together with thinking",
        ),
        ({"temperature": 1.5}, "temperature", "0 to 1"),
        ({"stop_sequences": [""]}, "stop_sequences.0", "not be empty"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type", "json_schema"),
    ],
)
def test_what_the_messages_api_refuses(change: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        incoming.parse({**CLAUDE, **change})
    assert caught.value.param == param


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def asked(arguments: str) -> dict[str, Any]:
    return {**ASKED, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": arguments}}]}


ANSWER = {"role": "tool", "tool_call_id": "c1", "content": "x"}
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"messages": []}, "messages", "entries"),
        ({"messages": [ANSWER]}, "messages.0.tool_call_id", "none of the tool_calls"),
        ({"messages": [ASKED, USER]}, "messages.1", "no tool message"),
        ({"messages": [ASKED, ANSWER, ANSWER]}, "messages.2.tool_call_id", "none of the tool_calls"),
        ({"messages": [{"role": "assistant"}]}, "messages.0.content", "required"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "required"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages.0.role", "must be one of"),
        (
            {"messages": [asked("{")]},
            "messages.0.tool_calls.0.function.arguments",
            "not JSON",
        ),
        (
            {"messages": [asked("[]")]},
            "messages.0.tool_calls.0.function.arguments",
            "of an object",
        ),
        (
            {
                "messages": [
                    {**ASKED, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": '{"a":"\\ud800"}'}}]}
                ]
            },
            "messages.0.tool_calls.0.function.arguments",
            "surrogate",
        ),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "together"),
        ({"top_logprobs": 1}, "top_logprobs", "needs logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice",
            "none of the",
        ),
        ({"tools": [TOOL, TOOL]}, "tools.1", "twice"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.0.type", "function"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "token id"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "-100 to 100"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "required"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
            "required",
        ),
        ({"n": 0}, "n", "1 to 128"),
        ({"stop": [1]}, "stop.0", "string"),
    ],
)
def test_what_chat_completions_refuses(change: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        chat_request.parse({"model": "m", "messages": [USER], **change})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"input": []}, "input", "not empty"),
        ({"input": ""}, "input", "not be empty"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type", "not supported"),
        ({"input": [{"type": "zz"}]}, "input.0.type", "must be one of"),
        (
            {"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]},
            "input.0.call_id",
            "no function",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input.0.content.0", "not supported"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "not supported"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "whole input"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", "required"),
        ({"include": ["everything"]}, "include.0", "must be one of"),
    ],
)
def test_what_responses_refuses(change: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        responses_request.parse({"model": "m", "input": "hi", **change})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"prompt": "x", "raw": True, "system": "s"}, "system", "raw mode"),
        ({"prompt": "x", "raw": True, "context": [1]}, "context", "raw mode"),
        ({"prompt": "x", "think": "very"}, "think", "must be true"),
        ({"prompt": "x", "format": "xml"}, "format", "JSON schema"),
        ({"prompt": "x", "top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"prompt": "x", "top_logprobs": 21, "logprobs": True}, "top_logprobs", "0 to 20"),
        ({"prompt": "x", "context": [-1]}, "context.0", "from 0"),
        ({"prompt": "x", "keep_alive": "soon"}, "keep_alive", "duration"),
    ],
)
def test_what_generate_refuses(change: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        ollama_incoming.parse_generate({"model": "m", **change})
    assert caught.value.param == param
