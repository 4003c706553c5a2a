"""POST /v1/chat/completions: the fields, and the neutral request that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..fields import (
    HONOURED,
    IGNORED,
    INT_MAX,
    OBJECT,
    REFUSED,
    Anything,
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
    kind,
    read,
    shown,
)
from ..messages import (
    Block,
    ImageBlock,
    Message,
    Output,
    Request,
    TextBlock,
    ThinkingBlock,
    ToolCall,
    ToolChoice,
    ToolDef,
    ToolResult,
)
from .common import (
    DEFAULTS,
    EFFORT,
    FUNCTION,
    KEEP_ALIVE,
    METADATA,
    MODEL,
    SAMPLING,
    STOP,
    STREAM_OPTIONS,
    arguments_of,
    check_names,
    function_tool,
    keep_alive,
    output_format,
    sampling,
    thinking_of,
)

_ROLE = Field("role", Text(), HONOURED, required=True)
_NAME = Field("name", Text(), IGNORED)
_CONTENT = Field("content", Anything("string or list of parts"), HONOURED)
_NEEDED = Field("content", Anything("string or list of parts"), HONOURED, required=True)
_BREAKPOINT = Field("prompt_cache_breakpoint", OBJECT, IGNORED, "every prompt is cached")
_TYPE = Field("type", Text(), HONOURED, required=True)

PARTS: Mapping[str, tuple[Field, ...]] = {
    "text": (_TYPE, Field("text", Text(), HONOURED, required=True), _BREAKPOINT),
    "refusal": (_TYPE, Field("refusal", Text(), HONOURED, "of the assistant", required=True)),
    "image_url": (
        _TYPE,
        Field("image_url", Anything("object or string"), HONOURED, "needs a model that sees", required=True),
        _BREAKPOINT,
    ),
    "input_audio": (_TYPE, Field("input_audio", Never("no model here hears"), REFUSED, required=True), _BREAKPOINT),
    "file": (_TYPE, Field("file", Never("files cannot be read here"), REFUSED, required=True), _BREAKPOINT),
}
CALL = (
    Field("id", Text(1, 256), HONOURED, required=True),
    Field("type", OneOf(("function",)), HONOURED),
    Field("function", OBJECT, HONOURED, "`name`, and `arguments` as JSON in a string", required=True),
    Field("index", Integer(0, INT_MAX), IGNORED),
)
CALLED = (
    Field("name", Text(1, 200), HONOURED, required=True),
    Field("arguments", Text(), HONOURED, required=True),
)
MESSAGES: Mapping[str, tuple[Field, ...]] = {
    "system": (_ROLE, _NEEDED, _NAME),
    "developer": (_ROLE, _NEEDED, _NAME),
    "user": (_ROLE, _NEEDED, _NAME),
    "assistant": (
        _ROLE,
        _CONTENT,
        _NAME,
        Field("tool_calls", ListOf(Record(CALL)), HONOURED),
        Field("refusal", Text(), IGNORED),
        Field("reasoning", Text(), HONOURED, "thinking of an earlier answer, as answers here have it"),
        Field("reasoning_content", Text(), HONOURED, "another name for it"),
        Field("annotations", ListOf(OBJECT), IGNORED),
        Field("audio", Never("no model here speaks"), REFUSED),
        Field("function_call", Never("use tool_calls"), REFUSED),
    ),
    "tool": (_ROLE, _NEEDED, _NAME, Field("tool_call_id", Text(1, 256), HONOURED, required=True)),
    "function": (_ROLE, Field("content", Never("use the role tool"), REFUSED), _NAME),
}


def parts_of(value: object, where: str) -> list[Block]:
    """The content of a message: a string, or typed parts."""
    if isinstance(value, str):
        return [TextBlock(value)] if value else []
    if not isinstance(value, list):
        raise Invalid(where, f"must be a string or a list of parts, not {kind(value)}")
    return [_part(item, join(where, i)) for i, item in enumerate(value)]


def _part(value: object, where: str) -> Block:
    def of(fields: tuple[Field, ...]) -> Callable[[dict[str, Any], str], dict[str, Any]]:
        return lambda value, where: read(value, fields, where)

    part = choose(value, where, "type", {name: of(fields) for name, fields in PARTS.items()})
    if part["type"] == "image_url":
        return ImageBlock(where)
    return TextBlock(part["text"] if part["type"] == "text" else part["refusal"])


def messages(value: object, where: str) -> tuple[Message, ...]:
    """The conversation, checked: tool messages answer the calls of the assistant's message before them."""
    items = ListOf(OBJECT, 1)(value, where)
    result = tuple(_message(item, join(where, i)) for i, item in enumerate(items))
    waiting: list[str] = []
    for i, message in enumerate(result):
        at = join(where, i)
        if message.role == "tool":
            for block in message.blocks:
                if isinstance(block, ToolResult) and block.id not in waiting:
                    raise Invalid(f"{at}.tool_call_id", "answers none of the tool_calls before it")
                waiting.remove(block.id if isinstance(block, ToolResult) else "")
        elif waiting:
            raise Invalid(at, f"the tool_call {shown(waiting[0])} has no tool message after it")
        waiting += [block.id for block in message.blocks if isinstance(block, ToolCall)]
    return result


def _message(value: object, where: str) -> Message:
    def of(role: str) -> Callable[[dict[str, Any], str], Message]:
        return lambda value, where: _of_role(role, read(value, MESSAGES[role], where), where)

    message: Message = choose(value, where, "role", {role: of(role) for role in MESSAGES})
    return message


def _of_role(role: str, fields: dict[str, Any], where: str) -> Message:
    blocks = parts_of(fields.get("content", ""), f"{where}.content")
    if role == "tool":
        if any(isinstance(block, ImageBlock) for block in blocks):
            raise Invalid(f"{where}.content", "a tool can only answer with text", "unsupported")
        text = "".join(block.text for block in blocks if isinstance(block, TextBlock))
        return Message("tool", (ToolResult(fields["tool_call_id"], text, name=fields.get("name")),))
    if role in ("system", "developer"):
        return Message("system", tuple(blocks))
    if role == "user":
        return Message("user", tuple(blocks))
    thought = fields.get("reasoning") or fields.get("reasoning_content")
    calls = [_call(call, f"{where}.tool_calls.{i}") for i, call in enumerate(fields.get("tool_calls", ()))]
    if "content" not in fields and not calls and not thought:
        raise Invalid(f"{where}.content", "is required where there are no tool_calls")
    return Message("assistant", (*([ThinkingBlock(thought)] if thought else []), *blocks, *calls))


def _call(call: dict[str, Any], where: str) -> ToolCall:
    function = read(call["function"], CALLED, f"{where}.function")
    arguments = arguments_of(function["arguments"], f"{where}.function.arguments")
    return ToolCall(call["id"], function["name"], arguments)


TOOL = (
    Field("type", OneOf(("function",)), HONOURED, "custom tools are refused", required=True),
    Field("function", Record(FUNCTION), HONOURED, required=True),
)


def _tools(value: object, where: str) -> tuple[ToolDef, ...]:
    tools = ListOf(Record(TOOL), high=10_000)(value, where)
    return tuple(function_tool(tool["function"], f"{where}.{i}.function") for i, tool in enumerate(tools))


@dataclass(frozen=True)
class Chosen:
    """`only`: of all tools, these may be called; None: all."""

    choice: ToolChoice
    only: tuple[str, ...] | None = None


_FUNCTION_NAME = Record((Field("name", Text(1), HONOURED, required=True),))
_NAMED = (_TYPE, Field("function", _FUNCTION_NAME, HONOURED, required=True))
_ALLOWED = (
    Field("mode", OneOf(("auto", "required")), HONOURED, required=True),
    Field("tools", ListOf(Record(_NAMED), 1), HONOURED, required=True),
)
_ALLOWED_CHOICE = (_TYPE, Field("allowed_tools", Record(_ALLOWED), HONOURED, required=True))


def choice(value: object, where: str) -> Chosen:
    """none, auto, required, one function, or some allowed ones."""
    if isinstance(value, str):
        mode = OneOf(("none", "auto", "required"))(value, where)
        return Chosen(ToolChoice("any" if mode == "required" else mode))

    def function(value: dict[str, Any], where: str) -> Chosen:
        return Chosen(ToolChoice("tool", read(value, _NAMED, where)["function"]["name"]))

    def allowed(value: dict[str, Any], where: str) -> Chosen:
        fields = read(value, _ALLOWED_CHOICE, where)["allowed_tools"]
        names = tuple(tool["function"]["name"] for tool in fields["tools"])
        return Chosen(ToolChoice("any" if fields["mode"] == "required" else "auto"), names)

    chosen: Chosen = choose(value, where, "type", {"function": function, "allowed_tools": allowed})
    return chosen


def _format(value: object, where: str) -> tuple[Output | None]:
    return (output_format(value, where, "json_schema"),)


FIELDS = (
    MODEL,
    Field("messages", By("list of messages", messages), HONOURED, "see below", required=True),
    *SAMPLING,
    STOP,
    Field("max_tokens", Integer(1, INT_MAX), HONOURED, "older name of max_completion_tokens"),
    Field("max_completion_tokens", Integer(1, INT_MAX), HONOURED),
    Field("n", Integer(1, 128), HONOURED),
    Field("stream", Flag(), HONOURED),
    Field("stream_options", Record(STREAM_OPTIONS), HONOURED),
    Field("logprobs", Flag(), HONOURED),
    Field("top_logprobs", Integer(0, 20), HONOURED, "with logprobs"),
    Field("response_format", By("object", _format), HONOURED, "text, json_object, json_schema; held by a grammar"),
    Field("tools", By("list of tools", _tools), HONOURED, "type function; custom is refused"),
    Field("tool_choice", By("string or object", choice), HONOURED, "required and a function are held by a grammar"),
    Field("parallel_tool_calls", Flag(), HONOURED, "false: at most one call"),
    Field("reasoning_effort", EFFORT, HONOURED, "none: no thinking; else thinking, where the template knows it"),
    Field("reasoning", Record((Field("effort", EFFORT, HONOURED),)), HONOURED, "not OpenAI's: as reasoning_effort"),
    Field("chat_template_kwargs", OBJECT, HONOURED, "not OpenAI's: variables of the template"),
    KEEP_ALIVE,
    Field("modalities", ListOf(Only("text", "no model here speaks")), REFUSED, 'only `["text"]`'),
    Field("user", Text(), IGNORED),
    Field("metadata", METADATA, IGNORED),
    Field("store", Flag(), IGNORED, "nothing is stored"),
    Field("service_tier", OneOf(("auto", "default", "flex", "scale", "priority", "fast")), IGNORED),
    Field("prediction", OBJECT, IGNORED),
    Field("prompt_cache_key", Text(), IGNORED, "the longest shared beginning is found without it"),
    Field("prompt_cache_options", OBJECT, IGNORED),
    Field("prompt_cache_retention", OneOf(("in_memory", "24h")), IGNORED),
    Field("safety_identifier", Text(), IGNORED),
    Field("verbosity", OneOf(("low", "medium", "high")), IGNORED),
    Field("audio", Never("no model here speaks"), REFUSED),
    Field("moderation", Never("there is no moderation here"), REFUSED),
    Field("web_search_options", Never("this server searches nothing"), REFUSED),
    Field("functions", Never("use tools"), REFUSED),
    Field("function_call", Never("use tool_choice"), REFUSED),
)


@dataclass(frozen=True)
class Call:
    """A request, and what its answer must know of it."""

    request: Request
    include_usage: bool


def parse(body: object) -> Call:
    values = read(body, FIELDS)
    if "max_tokens" in values and "max_completion_tokens" in values:
        raise Invalid("max_tokens", "cannot be there together with max_completion_tokens")
    if "top_logprobs" in values and not values.get("logprobs"):
        raise Invalid("top_logprobs", "needs logprobs to be true")
    if "stream_options" in values and not values.get("stream"):
        raise Invalid("stream_options", "needs stream to be true")
    history = values["messages"]
    tools, wanted = chosen_tools(values)
    effort = values.get("reasoning_effort") or values.get("reasoning", {}).get("effort")
    request = Request(
        model=values["model"],
        messages=history,
        tools=tools,
        tool_choice=wanted,
        sampling=sampling(values),
        defaults=DEFAULTS,
        max_tokens=values.get("max_completion_tokens", values.get("max_tokens")),
        stop=values.get("stop", ()),
        thinking=thinking_of(effort),
        output=values.get("response_format", (None,))[0],
        logprobs=values.get("top_logprobs", 0) if values.get("logprobs") else None,
        n=values.get("n", 1),
        prefill=is_prefill(history),
        template_args=values.get("chat_template_kwargs", {}),
        keep_alive=keep_alive(values),
        stream=values.get("stream", False),
    )
    return Call(request, values.get("stream_options", {}).get("include_usage", False))


def is_prefill(history: tuple[Message, ...]) -> bool:
    """Whether the last message is text of the assistant's, which is then continued (as Ollama does)."""
    last = history[-1]
    return last.role == "assistant" and bool(last.blocks) and isinstance(last.blocks[-1], TextBlock)


def chosen_tools(values: Mapping[str, Any]) -> tuple[tuple[ToolDef, ...], ToolChoice]:
    """The tools that may be called, and how they are chosen."""
    tools: tuple[ToolDef, ...] = values.get("tools", ())
    chosen: Chosen = values.get("tool_choice", Chosen(ToolChoice()))
    check_names(tools)
    names = [tool.name for tool in tools]
    wanted = chosen.only if chosen.only is not None else () if chosen.choice.name is None else (chosen.choice.name,)
    for name in wanted:
        if name not in names:
            raise Invalid("tool_choice", f"{shown(name)} is none of the tools")
    if chosen.choice.mode == "any" and not tools:
        raise Invalid("tool_choice", "needs tools to choose from")
    if chosen.only is not None:
        tools = tuple(tool for tool in tools if tool.name in chosen.only)
    parallel = values.get("parallel_tool_calls", True)
    return tools, ToolChoice(chosen.choice.mode, chosen.choice.name, parallel)
