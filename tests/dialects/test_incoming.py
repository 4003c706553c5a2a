"""What requests of the Anthropic and OpenAI dialects become, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ref_engine_app.anthropic import blocks, incoming
from ref_engine_app.messages import (
    AnyJson,
    ImageBlock,
    JsonSchema,
    Message,
    Request,
    TextBlock,
    Thinking,
    ThinkingBlock,
    ToolCall,
    ToolChoice,
    ToolDef,
    ToolResult,
)
from ref_engine_app.openai import chat_request, completions, embeddings, responses_items, responses_request

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
USER = {"role": "user", "content": "hi"}


def claude(**more: Any) -> Request:
    return incoming.parse({"model": "m", "max_tokens": 5000, "messages": [USER], **more}).request


def user(*texts: str) -> Message:
    return Message("user", tuple(TextBlock(text) for text in texts))


def test_a_whole_conversation_of_the_messages_api() -> None:
    history = [
        {"role": "user", "content": "how warm?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "look", "signature": "x"},
                {"type": "redacted_thinking", "data": "opaque"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "Rome"}},
                {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": True},
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "22"}]},
                {"type": "text", "text": "well?"},
            ],
        },
    ]
    request = claude(messages=history, system=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    assert request.messages == (
        Message("system", (TextBlock("a"), TextBlock("b"))),
        user("how warm?"),
        Message(
            "assistant",
            (
                ThinkingBlock("look", "x"),
                TextBlock("I look."),
                ToolCall("t1", "f", {"a": "Rome"}),
                ToolCall("t2", "f", {}),
            ),
        ),
        Message("tool", (ToolResult("t2", "no", True), ToolResult("t1", "22"))),
        user("well?"),
    )
    assert not request.prefill


def test_turns_of_one_role_are_joined() -> None:
    history = [
        USER,
        {"role": "user", "content": [{"type": "text", "text": "you"}]},
        {"role": "assistant", "content": "A"},
    ]
    request = claude(messages=history)
    assert request.messages == (user("hi", "\n\n", "you"), Message("assistant", (TextBlock("A"),)))
    assert request.prefill
    assert not claude(messages=[*history[:2], {"role": "assistant", "content": ""}]).prefill


def test_a_system_message_may_stand_in_the_middle() -> None:
    history = [USER, {"role": "system", "content": "be short"}]
    assert [message.role for message in claude(messages=history).messages] == ["user", "system"]


def test_documents_and_search_results_become_text() -> None:
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "D"}, "title": "T"}
    parts = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "C"}]}}
    found = {"type": "search_result", "source": "S", "title": "T", "content": [{"type": "text", "text": "R"}]}
    (message,) = claude(messages=[{"role": "user", "content": [plain, parts, found]}]).messages
    assert message.text == (
        "<document>\n<title>T</title>\nD\n</document>\n"
        "<document>\nC\n</document>\n"
        "<search_result>\n<source>S</source>\n<title>T</title>\nR\n</search_result>\n"
    )


def test_an_image_is_left_to_the_pipeline() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    (message,) = claude(messages=[{"role": "user", "content": [image]}]).messages
    assert message.blocks == (ImageBlock("messages.0.content.0"),)


def test_fields_of_the_messages_api() -> None:
    request = claude(
        temperature=0,
        top_k=5,
        stop_sequences=["X", "\n"],
        tools=[{"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True}],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        output_config={"effort": "max", "format": {"type": "json_schema", "schema": SCHEMA}},
        stream=True,
    )
    assert dict(request.sampling) == {"temperature": 0.0, "top_k": 5}
    assert (request.stop, request.max_tokens, request.stream) == (("X", "\n"), 5000, True)
    assert request.tools == (ToolDef("f", "d", SCHEMA, True),)
    assert request.tool_choice == ToolChoice("tool", "f", parallel=False)
    assert request.output == JsonSchema(SCHEMA)
    assert request.thinking == Thinking(False, None, "high")


@pytest.mark.parametrize(
    ("given", "thinking"),
    [
        (None, Thinking(False)),
        ({"type": "disabled"}, Thinking(False)),
        ({"type": "adaptive"}, Thinking(True)),
        ({"type": "enabled", "budget_tokens": 2048}, Thinking(True, 2048)),
    ],
)
def test_thinking_of_the_messages_api(given: Any, thinking: Thinking) -> None:
    assert claude(thinking=given).thinking == thinking


@pytest.mark.parametrize(
    "body",
    [
        {"cache_control": {"type": "ephemeral"}},
        {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]},
        {"tools": [{"name": "f", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}
            ]
        },
    ],
)
def test_a_cache_control_is_found_wherever_it_may_be(body: dict[str, Any]) -> None:
    base = {"model": "m", "max_tokens": 5, "messages": [USER]}
    assert incoming.parse({**base, **body}).marked
    assert not incoming.parse(base).marked


def test_signatures() -> None:
    text = "Überlegung " * 1000
    signature = blocks.sign(text)
    assert blocks.unsign(signature) == text and len(signature) < 200
    for other in ("", "EvMBCkYIAxgCKkBDYak8", "%%%", blocks.sign("x" * (blocks.MAX_THINKING + 1)), signature[:40]):
        assert blocks.unsign(other) == ""


# -- OpenAI ---------------------------------------------------------------------------------------------------


def gpt(**more: Any) -> Request:
    return chat_request.parse({"model": "m", "messages": [USER], **more}).request


def test_a_whole_conversation_of_chat_completions() -> None:
    history = [
        {"role": "developer", "content": "be short"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "me"},
        {
            "role": "assistant",
            "content": None,
            "reasoning": "look",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "22"}]},
        {"role": "assistant", "content": "It is"},
    ]
    request = gpt(messages=history)
    assert request.messages == (
        Message("system", (TextBlock("be short"),)),
        user("a", "b"),
        Message("assistant", (ThinkingBlock("look"), ToolCall("c1", "f", {"a": 1}))),
        Message("tool", (ToolResult("c1", "22"),)),
        Message("assistant", (TextBlock("It is"),)),
    )
    assert request.prefill


def test_fields_of_chat_completions() -> None:
    request = gpt(
        temperature=0,
        seed=-1,
        logit_bias={"7": -100},
        stop="X",
        max_completion_tokens=3,
        n=2,
        logprobs=True,
        top_logprobs=4,
        keep_alive=-1,
        response_format={"type": "json_object"},
        chat_template_kwargs={"a": 1},
        reasoning_effort="minimal",
    )
    assert dict(request.sampling) == {"temperature": 0.0, "seed": 2**64 - 1, "logit_bias": {7: -100.0}}
    assert (request.stop, request.max_tokens, request.n, request.logprobs) == (("X",), 3, 2, 4)
    assert (request.keep_alive, request.output, dict(request.template_args)) == (math.inf, AnyJson(), {"a": 1})
    assert request.thinking == Thinking(True, None, "low")
    assert gpt().thinking == Thinking() and gpt(reasoning={"effort": "none"}).thinking == Thinking(False)
    assert gpt(logprobs=True).logprobs == 0 and gpt(logprobs=False).logprobs is None


TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("f", "g")]
ONE = {"type": "function", "function": {"name": "g"}}


@pytest.mark.parametrize(
    ("given", "choice", "names"),
    [
        ("auto", ToolChoice(), "fg"),
        ("none", ToolChoice("none"), "fg"),
        ("required", ToolChoice("any"), "fg"),
        (ONE, ToolChoice("tool", "g"), "fg"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [ONE]}}, ToolChoice("any"), "g"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [ONE]}}, ToolChoice(), "g"),
    ],
)
def test_tool_choice_of_chat_completions(given: Any, choice: ToolChoice, names: str) -> None:
    request = gpt(tools=TOOLS, tool_choice=given)
    assert request.tool_choice == choice
    assert "".join(tool.name for tool in request.tools) == names
    assert not gpt(tools=TOOLS, parallel_tool_calls=False).tool_choice.parallel


def test_completions_and_embeddings_take_texts_and_tokens() -> None:
    for given, prompts in (
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ):
        call = completions.parse({"model": "m", "prompt": given, "n": 2})
        assert tuple(request.prompt for request in call.requests) == prompts
        assert all(request.n == 2 and not request.messages for request in call.requests)
        assert embeddings.parse({"model": "m", "input": given})[0].inputs == prompts


def test_items_of_responses() -> None:
    items = [
        {"type": "message", "role": "developer", "content": "be short"},
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "x"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "look"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "c2", "name": "f", "arguments": ""},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "1"}]},
        {"type": "function_call_output", "call_id": "c2", "output": "2"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A", "annotations": []}]},
        {"role": "user", "content": "more"},
    ]
    body = {"model": "m", "instructions": "I", "input": items, "truncation": "auto", "top_logprobs": 2}
    request = responses_request.parse(body).request
    assert request.messages == (
        Message("system", (TextBlock("I"),)),
        Message("system", (TextBlock("be short"),)),
        Message("user", (TextBlock("hi"), ImageBlock("input.1.content.1"))),
        Message("assistant", (ThinkingBlock("look"), ToolCall("c1", "f", {"a": 1}), ToolCall("c2", "f", {}))),
        Message("tool", (ToolResult("c1", "1"), ToolResult("c2", "2"))),
        Message("assistant", (TextBlock("A"),)),
        user("more"),
    )
    assert (request.truncate, request.logprobs) == (True, 2)


def test_sealed_reasoning() -> None:
    assert responses_items.unseal(responses_items.seal("hm")) == "hm"
    assert responses_items.unseal("gAAAAABother") == ""
