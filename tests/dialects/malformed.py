"""Requests that cannot be meant, by the hundred: bodies that are no JSON, and a good body with one thing wrong."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
GPT_TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}

GOOD: dict[str, dict[str, Any]] = {
    "/v1/messages": {
        "model": "m",
        "max_tokens": 8,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "b"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "c"}]},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
                ],
            },
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "disabled"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        "stop_sequences": ["X"],
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 5,
        "metadata": {"user_id": "u"},
        "stream": False,
    },
    "/v1/messages/count_tokens": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "system": "s"},
    "/v1/chat/completions": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "u"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "c"},
        ],
        "tools": [GPT_TOOL],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
        "stream_options": {"include_usage": True},
        "stream": True,
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"5": 1.5},
        "stop": ["X"],
        "n": 1,
        "seed": 1,
        "temperature": 1,
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "max_completion_tokens": 8,
        "parallel_tool_calls": True,
        "reasoning_effort": "none",
        "metadata": {"k": "v"},
    },
    "/v1/completions": {
        "model": "m",
        "prompt": ["a", "b"],
        "max_tokens": 8,
        "logprobs": 1,
        "stop": "X",
        "n": 1,
        "temperature": 0,
        "logit_bias": {"1": 1},
    },
    "/v1/embeddings": {"model": "m", "input": ["a"], "encoding_format": "float", "dimensions": 2},
    "/v1/responses": {
        "model": "m",
        "instructions": "i",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "r"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "o"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 8,
        "temperature": 1,
        "metadata": {"k": "v"},
    },
    "/api/generate": {
        "model": "m",
        "prompt": "hi",
        "system": "s",
        "context": [1, 2],
        "options": {"temperature": 0, "num_predict": 8, "stop": ["X"], "seed": 1, "num_ctx": 64},
        "format": SCHEMA,
        "keep_alive": "5m",
        "think": False,
        "logprobs": True,
        "top_logprobs": 1,
        "stream": False,
    },
    "/api/chat": {
        "model": "m",
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "tool_name": "f", "content": "c"},
        ],
        "tools": [GPT_TOOL],
        "options": {"temperature": 0, "num_predict": 8},
        "format": "json",
        "keep_alive": 60,
        "stream": False,
    },
    "/api/embed": {"model": "m", "input": ["a"], "truncate": True, "dimensions": 2, "options": {}},
    "/api/embeddings": {"model": "m", "prompt": "a", "keep_alive": "1m"},
}

WRONG: tuple[Any, ...] = (
    True, 0, -1, 1.5, 2**70, "", "x", "\x00", "../../etc/passwd", "é" * 5000, [], [[]], [None], {}, {"a": 1},
    {"type": "x"},
)  # fmt: skip
"""Values put in the place of others. Some fit where they are put: then the answer is a success."""

BODIES: tuple[bytes, ...] = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"5",
    b"{}",
    b"model=m&prompt=hi",
    b"\xff\xfe{}",
    b'{"model": "\xff"}',
    b'{"model": "\xc3"}',
    b'{"model": "m", "x": NaN}',
    b'{"model": "m", "x": Infinity}',
    b'{"model": "m", "temperature": 1e999}',
    b'{"model": "\\ud800"}',
    b'{"model": "m", "\\udfff": 1}',
    b'{"model": "m", "seed": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"model": "m", "x": ' + b"[" * 500 + b"]" * 500 + b"}",
    b'{"model": "m", "x": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
    b'{"model": "m",}',
    b"{'model': 'm'}",
    '{"model": "m"}'.encode("utf-16"),
    b'{"model": "m"} {}',
    b"\x00" * 100,
    b'{"model": "m", "x": "' + b"y" * 1_000_000,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a body."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from paths(item, (*at, key))


def put(body: Any, at: tuple[Any, ...], value: Any) -> Any:
    """The body with another value there."""
    changed = copy.deepcopy(body)
    place = changed
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    return changed


def without(body: Any, at: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(body)
    place = changed
    for key in at[:-1]:
        place = place[key]
    del place[at[-1]]
    return changed


def mutants(good: dict[str, Any], count: int, seed: int) -> list[bytes]:
    """The good body with one thing replaced, left out, or put in; the same ones every time."""
    draw = random.Random(seed)
    places = list(paths(good))
    made: list[Any] = [without(good, at) for at in places]
    made += [put(good, (*at, "zzz"), 1) for at in places if isinstance(value_at(good, at), dict)]
    replaced = [put(good, at, value) for at in places for value in WRONG]
    made += draw.sample(replaced, min(count, len(replaced)))
    return [json.dumps(body).encode() for body in made]


def value_at(body: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        body = body[key]
    return body


def in_shape(path: str, body: Any) -> bool:
    """Whether an error has the form of its dialect."""
    if path.startswith("/v1/messages"):
        error = body.get("error", {})
        return (
            set(body) == {"type", "error", "request_id"}
            and body["type"] == "error"
            and set(error) == {"type", "message"}
            and bool(error["message"])
            and "\n" not in error["message"]
        )
    if path.startswith("/v1/"):
        error = body.get("error", {})
        return set(body) == {"error"} and set(error) == {"message", "type", "param", "code"} and bool(error["message"])
    return (
        set(body) == {"error"} and isinstance(body["error"], str) and body["error"] != "" and "\n" not in body["error"]
    )
