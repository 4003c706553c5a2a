"""POST /v1/responses: the fields, and the neutral request that they make.

Nothing is stored, so a request cannot refer to an earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..fields import (
    HONOURED,
    IGNORED,
    INT_MAX,
    OBJECT,
    REFUSED,
    By,
    Field,
    Flag,
    Integer,
    Invalid,
    ListOf,
    Never,
    OneOf,
    Only,
    Record,
    Text,
    choose,
    join,
    read,
    shown,
)
from ..messages import Message, Output, Request, TextBlock, ToolChoice, ToolDef
from .chat_request import Chosen, chosen_tools, is_prefill
from .common import (
    DEFAULTS,
    EFFORT,
    FUNCTION,
    KEEP_ALIVE,
    METADATA,
    MODEL,
    SAMPLING,
    Json,
    function_tool,
    keep_alive,
    output_format,
    sampling,
    thinking_of,
)
from .responses_items import items

_STATELESS = "nothing is stored here: send the whole input"
_TYPE = Field("type", Text(), HONOURED, required=True)
SAMPLED = tuple(field for field in SAMPLING if field.name in ("temperature", "top_p", "top_k", "min_p", "seed"))

TOOL = (
    _TYPE,
    *FUNCTION,
    Field("allowed_callers", ListOf(Text()), IGNORED),
    Field("defer_loading", Flag(), IGNORED, "all tools are in the prompt"),
    Field("output_schema", OBJECT, IGNORED),
    Field("async", Flag(), IGNORED, "who calls waits for what it likes"),
)


def _tools(value: object, where: str) -> tuple[ToolDef, ...]:
    result = []
    for i, tool in enumerate(ListOf(OBJECT, high=10_000)(value, where)):
        at = join(where, i)
        if tool.get("type") != "function":
            of = shown(tool.get("type"))
            raise Invalid(join(at, "type"), f'{of} is not supported: tools must be "function"', "unsupported")
        result.append(function_tool(read(tool, TOOL, at), at))
    return tuple(result)


_NAMED = (_TYPE, Field("name", Text(1), HONOURED, required=True))
_ALLOWED = (
    _TYPE,
    Field("mode", OneOf(("auto", "required")), HONOURED, required=True),
    Field("tools", ListOf(Record(_NAMED), 1), HONOURED, required=True),
)


def _choice(value: object, where: str) -> Chosen:
    if isinstance(value, str):
        mode = OneOf(("none", "auto", "required"))(value, where)
        return Chosen(ToolChoice("any" if mode == "required" else mode))

    def function(value: dict[str, Any], where: str) -> Chosen:
        return Chosen(ToolChoice("tool", read(value, _NAMED, where)["name"]))

    def allowed(value: dict[str, Any], where: str) -> Chosen:
        fields = read(value, _ALLOWED, where)
        names = tuple(tool["name"] for tool in fields["tools"])
        return Chosen(ToolChoice("any" if fields["mode"] == "required" else "auto"), names)

    chosen: Chosen = choose(value, where, "type", {"function": function, "allowed_tools": allowed})
    return chosen


def _format(value: object, where: str) -> tuple[Output | None]:
    return (output_format(value, where, None),)


TEXT = (
    Field("format", By("object", _format), HONOURED, "text, json_object, json_schema; held by a grammar"),
    Field("verbosity", OneOf(("low", "medium", "high")), IGNORED),
)
REASONING = (
    Field("effort", EFFORT, HONOURED, "none: no thinking; else thinking, where the template knows it"),
    Field("summary", OneOf(("auto", "concise", "detailed")), HONOURED, "the reasoning itself, as its summary"),
    Field("generate_summary", OneOf(("auto", "concise", "detailed")), HONOURED, "older name of summary"),
    Field("context", OneOf(("auto", "current_turn", "all_turns")), IGNORED),
    Field("mode", Text(), IGNORED),
)
INCLUDE = (
    "message.output_text.logprobs", "reasoning.encrypted_content", "file_search_call.results",
    "web_search_call.results", "web_search_call.action.sources", "message.input_image.image_url",
    "computer_call_output.output.image_url", "code_interpreter_call.outputs",
)  # fmt: skip
FIELDS = (
    MODEL,
    Field("input", By("string or list of items", items), HONOURED, "see below", required=True),
    Field("instructions", Text(), HONOURED, "a system message before the input"),
    *SAMPLED,
    Field("max_output_tokens", Integer(1, INT_MAX), HONOURED),
    Field("stream", Flag(), HONOURED),
    Field("stream_options", Record((Field("include_obfuscation", Flag(), IGNORED),)), IGNORED),
    Field("text", Record(TEXT), HONOURED),
    Field("tools", By("list of tools", _tools), HONOURED, "type function; others are refused by name"),
    Field("tool_choice", By("string or object", _choice), HONOURED, "required and a function are held by a grammar"),
    Field("parallel_tool_calls", Flag(), HONOURED, "false: at most one call"),
    Field("max_tool_calls", Integer(1, INT_MAX), HONOURED, "given back; counts calls that a server runs itself"),
    Field("reasoning", Record(REASONING), HONOURED),
    Field("include", ListOf(OneOf(INCLUDE)), HONOURED, "output_text.logprobs and reasoning.encrypted_content"),
    Field("top_logprobs", Integer(0, 20), HONOURED),
    Field("truncation", OneOf(("auto", "disabled")), HONOURED, "auto: the oldest messages go where the context ends"),
    Field("metadata", METADATA, HONOURED, "given back"),
    KEEP_ALIVE,
    Field("store", Flag(), IGNORED, "nothing is stored"),
    Field("background", Only(False, _STATELESS), REFUSED),
    Field("user", Text(), HONOURED, "given back"),
    Field("safety_identifier", Text(), IGNORED),
    Field("service_tier", Text(), IGNORED),
    Field("prompt_cache_key", Text(), IGNORED, "the longest shared beginning is found without it"),
    Field("prompt_cache_options", OBJECT, IGNORED),
    Field("prompt_cache_retention", OneOf(("in_memory", "24h")), IGNORED),
    Field("context_management", ListOf(OBJECT), IGNORED, "nothing is taken out of the conversation"),
    Field("image", OBJECT, IGNORED),
    Field("access_programs", OBJECT, IGNORED),
    Field("background_options", OBJECT, IGNORED),
    Field("previous_response_id", Never(_STATELESS), REFUSED),
    Field("conversation", Never(_STATELESS), REFUSED),
    Field("prompt", Never("prompts are not stored here"), REFUSED),
    Field("moderation", Never("there is no moderation here"), REFUSED),
)


@dataclass(frozen=True)
class Call:
    """A request, and what its answer repeats of it. `summarized`, `sealed`: in which forms reasoning is wanted."""

    request: Request
    echo: Json
    summarized: bool
    sealed: bool


def parse(body: object) -> Call:
    values = read(body, FIELDS)
    assert isinstance(body, dict)
    tools, wanted = chosen_tools(values)
    reasoning = values.get("reasoning", {})
    include = values.get("include", [])
    instructions = values.get("instructions")
    history = values["input"]
    if instructions:
        history = (Message("system", (TextBlock(instructions),)), *history)
    request = Request(
        model=values["model"],
        messages=history,
        tools=tools,
        tool_choice=wanted,
        sampling=sampling(values),
        defaults=DEFAULTS,
        max_tokens=values.get("max_output_tokens"),
        thinking=thinking_of(reasoning.get("effort")),
        output=values.get("text", {}).get("format", (None,))[0],
        logprobs=values.get("top_logprobs", 0 if "message.output_text.logprobs" in include else None),
        prefill=is_prefill(history),
        truncate=values.get("truncation") == "auto",
        keep_alive=keep_alive(values),
        stream=values.get("stream", False),
    )
    summarized = "summary" in reasoning or "generate_summary" in reasoning
    return Call(request, _echo(body), summarized, "reasoning.encrypted_content" in include)


def _echo(body: Json) -> Json:
    """What a response says of its request, with the real API's defaults."""
    defaults: Json = {
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }
    given = {name: body[name] for name in defaults if body.get(name) is not None}
    return {**defaults, **given, "store": False, "background": False, "service_tier": "default"}
