"""Events folded into answers, and neutral conversations as templates read them."""

from __future__ import annotations

import pytest

from ref_engine_app.errors import ApiError
from ref_engine_app.messages import (
    Done,
    Event,
    Failed,
    ImageBlock,
    Message,
    Request,
    Start,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    Timings,
    TokenInfo,
    ToolCall,
    ToolDelta,
    ToolEnd,
    ToolResult,
    ToolStart,
    Usage,
    fold,
)
from ref_engine_app.prompt import as_template_messages


def test_a_whole_answer_is_the_fold_of_its_stream() -> None:
    token = TokenInfo(5, b"x", -0.5)
    events: list[Event] = [
        Start("m", 3, 1),
        ThinkingDelta("let "),
        ThinkingDelta("me"),
        TextDelta("a"),
        TextDelta("", (token,)),
        TextDelta("b"),
        ToolStart(0, "id0", "f"),
        ToolDelta(0, '{"x"'),
        ToolDelta(0, ":1}"),
        ToolEnd(0, {"x": 1}),
        TextDelta("c"),
        Done("stop", Usage(3), Timings()),
    ]
    (answer,) = fold(events)
    assert answer.blocks == (
        ThinkingBlock("let me"),
        TextBlock("ab"),
        ToolCall("id0", "f", {"x": 1}),
        TextBlock("c"),
    )
    assert (answer.text, answer.thinking, answer.tokens) == ("abc", "let me", (token,))


def test_choices_may_be_interleaved() -> None:
    done = [Done("stop", Usage(1), Timings(), choice=i) for i in range(2)]
    events: list[Event] = [Start("m", 1, 0, 1), TextDelta("b", (), 1), Start("m", 1, 0, 0), TextDelta("a", (), 0)]
    answers = fold([*events, done[1], done[0]])
    assert [answer.text for answer in answers] == ["a", "b"]


def test_what_breaks_is_raised() -> None:
    with pytest.raises(ApiError, match="broken"):
        fold([Start("m", 1, 0), TextDelta("a"), Failed(ApiError("internal", "broken"))])


def test_a_request_is_a_conversation_or_a_prompt() -> None:
    for wrong in ({}, {"messages": (Message("user", ()),), "prompt": "x"}):
        with pytest.raises(ApiError):
            Request("m", **wrong)  # type: ignore[arg-type]


def test_turns_of_tools() -> None:
    messages = [
        Message("user", (TextBlock("weather "), TextBlock("in Paris?"))),
        Message(
            "assistant", (ThinkingBlock("call it"), TextBlock("one moment"), ToolCall("c1", "f", {"city": "Paris"}))
        ),
        Message("user", (ToolResult("c1", "sunny"), ToolResult("c2", "no", is_error=True), TextBlock("and now?"))),
        Message("user", (ToolResult("c1", "rain"),)),
    ]
    assert as_template_messages(messages) == [
        {"role": "user", "content": "weather in Paris?"},
        {
            "role": "assistant",
            "content": "one moment",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"city": "Paris"}}}],
            "reasoning_content": "call it",
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "f"},
        {"role": "tool", "content": "Error: no", "tool_call_id": "c2", "name": ""},
        {"role": "user", "content": "and now?"},
        {"role": "tool", "content": "rain", "tool_call_id": "c1", "name": "f"},
    ]


def test_images_are_refused_by_name() -> None:
    with pytest.raises(ApiError, match=r"messages\.0\.content\.1: images are not supported"):
        as_template_messages([Message("user", (ImageBlock("messages.0.content.1"),))])
