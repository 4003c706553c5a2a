"""POST /v1/messages and /v1/messages/count_tokens: the fields, and the neutral request that they make."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
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
    Number,
    OneOf,
    Record,
    Text,
    choose,
    join,
    kind,
    read,
    shown,
)
from ..messages import JsonSchema, Output, Request, Thinking, ToolChoice, ToolDef
from .blocks import CACHE_CONTROL
from .turns import system, turns

DEFAULTS = MappingProxyType({"temperature": 1.0, "top_k": 40, "top_p": 1.0, "min_p": 0.0})
"""Where neither the request nor the model says otherwise; the real service has no top_k by default."""

MIN_BUDGET = 1024
_ELSEWHERE = "such tools run on, or are known to, Anthropic's own models"

TOOL = (
    Field("name", Text(1, 128, r"[a-zA-Z0-9_-]+"), HONOURED, required=True),
    Field("description", Text(), HONOURED),
    Field("input_schema", OBJECT, HONOURED, "a JSON schema of type object", required=True),
    Field("type", Text(), HONOURED, "only `custom`; others are refused by name"),
    Field("strict", Flag(), HONOURED, "calls obey the schema, by a grammar"),
    Field("cache_control", CACHE_CONTROL, HONOURED),
    Field("eager_input_streaming", Flag(), IGNORED, "input is streamed as it is generated"),
    Field("defer_loading", Flag(), IGNORED, "all tools are in the prompt"),
    Field("allowed_callers", ListOf(Text()), IGNORED),
    Field("input_examples", ListOf(OBJECT), IGNORED),
)
_DISABLE = Field("disable_parallel_tool_use", Flag(), HONOURED, "at most one call")
_KIND = Field("type", Text(), HONOURED, required=True)
CHOICE = (_KIND, _DISABLE)
NAMED_CHOICE = (_KIND, Field("name", Text(1), HONOURED, required=True), _DISABLE)
_DISPLAY = Field("display", OneOf(("summarized", "omitted")), HONOURED, "omitted: thinking only in the signature")
THINKING_ENABLED = (
    _KIND,
    Field("budget_tokens", Integer(MIN_BUDGET, INT_MAX), HONOURED, "enforced; less than max_tokens", required=True),
    _DISPLAY,
)
THINKING_ADAPTIVE = (_KIND, _DISPLAY)
FORMAT = (
    Field("type", OneOf(("json_schema",)), HONOURED, required=True),
    Field("schema", OBJECT, HONOURED, "the answer obeys it, by a grammar", required=True),
)
OUTPUT_CONFIG = (
    Field(
        "effort",
        OneOf(("low", "medium", "high", "xhigh", "max")),
        HONOURED,
        "reaches templates that know `reasoning_effort`; xhigh and max count as high",
    ),
    Field("format", Record(FORMAT), HONOURED),
)


def _tool(value: object, where: str) -> ToolDef:
    if not isinstance(value, dict):
        raise Invalid(where, f"must be an object, not {kind(value)}")
    name = value.get("type")
    if name is not None and name != "custom":
        raise Invalid(join(where, "type"), f"{shown(name)} is not supported: {_ELSEWHERE}", "unsupported")
    fields = read(value, TOOL, where)
    schema = fields["input_schema"]
    if schema.get("type") != "object":
        raise Invalid(join(where, "input_schema.type"), f'must be "object", not {shown(schema.get("type"))}')
    return ToolDef(fields["name"], fields.get("description", ""), schema, fields.get("strict", False))


def _choice(value: object, where: str) -> ToolChoice:
    def of(mode: Any) -> Any:
        def make(value: dict[str, Any], where: str) -> ToolChoice:
            fields = read(value, NAMED_CHOICE if mode == "tool" else CHOICE, where)
            return ToolChoice(mode, fields.get("name"), not fields.get("disable_parallel_tool_use", False))

        return make

    choice: ToolChoice = choose(value, where, "type", {mode: of(mode) for mode in ("auto", "any", "tool", "none")})
    return choice


@dataclass(frozen=True)
class _Thought:
    thinking: Thinking
    omitted: bool = False


def _thinking(value: object, where: str) -> _Thought:
    def enabled(value: dict[str, Any], where: str) -> _Thought:
        fields = read(value, THINKING_ENABLED, where)
        return _Thought(Thinking(True, fields["budget_tokens"]), fields.get("display") == "omitted")

    def adaptive(value: dict[str, Any], where: str) -> _Thought:
        fields = read(value, THINKING_ADAPTIVE, where)
        return _Thought(Thinking(True), fields.get("display") == "omitted")

    def disabled(value: dict[str, Any], where: str) -> _Thought:
        read(value, (_KIND,), where)
        return _Thought(Thinking(False))

    def between(value: dict[str, Any], where: str) -> _Thought:
        raise Invalid(join(where, "type"), "between_tools is not supported: thinking is on or off here", "unsupported")

    variants = {"enabled": enabled, "adaptive": adaptive, "disabled": disabled, "between_tools": between}
    thought: _Thought = choose(value, where, "type", variants)
    return thought


_TOOLS = ListOf(By("tool", _tool), high=10_000)
_SYSTEM = By("string or list of text blocks", system)
_OTHER_SERVICE = "belongs to the service it is named after"
COUNT_FIELDS = (
    Field("model", Text(1, 300), HONOURED, "a name that `ref-engine list` shows", required=True),
    Field("messages", By("list of messages", turns), HONOURED, "see below", required=True),
    Field("system", _SYSTEM, HONOURED),
    Field("tools", _TOOLS, HONOURED, "type custom; others are refused by name"),
    Field("tool_choice", By("object", _choice), HONOURED, "auto, any, tool, none; any and tool by a grammar"),
    Field("thinking", By("object", _thinking), HONOURED, "enabled, adaptive, disabled; without it: disabled"),
    Field("output_config", Record(OUTPUT_CONFIG), HONOURED),
    Field("output_format", Record(FORMAT), HONOURED, "older name of output_config.format"),
    Field("cache_control", CACHE_CONTROL, HONOURED, "as on a block; every prompt is cached anyway"),
    Field("context_management", OBJECT, IGNORED, "nothing is taken out of the conversation"),
    Field("speed", OneOf(("standard", "fast")), IGNORED),
    Field("user_profile_id", Text(), IGNORED),
    Field("workspace_id", Text(), IGNORED),
    Field("mcp_servers", ListOf(Never("this server calls no others"), high=1), REFUSED, "only an empty list"),
)
FIELDS = (
    *COUNT_FIELDS,
    Field("max_tokens", Integer(0, INT_MAX), HONOURED, "0 only reads the prompt into the cache", required=True),
    Field("stop_sequences", ListOf(Text(1, 1000), high=1000), HONOURED, "none of them is ever in the answer"),
    Field("stream", Flag(), HONOURED),
    Field("temperature", Number(0, 1), HONOURED),
    Field("top_p", Number(0, 1), HONOURED),
    Field("top_k", Integer(0, INT_MAX), HONOURED, "0: all tokens"),
    Field("metadata", Record((Field("user_id", Text(), IGNORED),)), IGNORED),
    Field("service_tier", OneOf(("auto", "standard_only")), IGNORED),
    Field("inference_geo", Text(), IGNORED),
    Field("diagnostics", Record((Field("previous_message_id", Text(), IGNORED),)), IGNORED),
    Field("container", Never("there are no containers here"), REFUSED),
)


@dataclass(frozen=True)
class Call:
    """A request, and what its answer must know of it. `marked`: it has a cache_control somewhere."""

    request: Request
    marked: bool
    omit_thinking: bool


def parse(body: object, counting: bool = False) -> Call:
    """The call that a body asks for. `counting`: for count_tokens, whose max_tokens does not matter."""
    values = read(body, COUNT_FIELDS if counting else FIELDS)
    conversation = values["messages"]
    thought = values.get("thinking", _Thought(Thinking(False)))
    config = values.get("output_config", {})
    form = config.get("format") or values.get("output_format")
    request = Request(
        model=values["model"],
        messages=(*values.get("system", ()), *conversation.messages),
        tools=tuple(values.get("tools", ())),
        tool_choice=values.get("tool_choice", ToolChoice()),
        sampling={name: values[name] for name in ("temperature", "top_p", "top_k") if name in values},
        defaults=DEFAULTS,
        max_tokens=values.get("max_tokens"),
        stop=tuple(values.get("stop_sequences", ())),
        thinking=_with_effort(thought.thinking, config.get("effort")),
        output=_output(form),
        prefill=conversation.prefill,
        stream=values.get("stream", False),
    )
    _check_together(request, "tool_choice" in values)
    return Call(request, has_mark(body), thought.omitted)


def _with_effort(thinking: Thinking, effort: str | None) -> Thinking:
    if effort is None:
        return thinking
    return Thinking(thinking.enabled, thinking.budget, "high" if effort in ("xhigh", "max") else effort)


def _output(form: dict[str, Any] | None) -> Output | None:
    return None if form is None else JsonSchema(form["schema"])


def _check_together(request: Request, chosen: bool) -> None:
    """What the real API refuses of fields that are right by themselves."""
    choice, thinking, limit = request.tool_choice, request.thinking, request.max_tokens
    names = [tool.name for tool in request.tools]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise Invalid(f"tools.{i}.name", f"{shown(name)} is there twice")
    if chosen and not names:
        raise Invalid("tool_choice", "needs tools to choose from")
    if choice.mode == "tool" and choice.name not in names:
        raise Invalid("tool_choice.name", f"{shown(choice.name)} is none of the tools")
    if thinking.budget is not None and limit is not None and thinking.budget >= limit:
        raise Invalid("thinking.budget_tokens", f"must be less than max_tokens, which is {limit}")
    if thinking.enabled and choice.mode in ("any", "tool"):
        raise Invalid("tool_choice.type", "a tool cannot be forced while thinking is enabled")
    if request.prefill and (thinking.enabled or request.output is not None):
        what = "thinking" if thinking.enabled else "output_config.format"
        raise Invalid("messages", f"the last message cannot be the assistant's together with {what}")


def has_mark(body: object) -> bool:
    """Whether there is a cache_control in the body, at the places where the API has one."""
    if not isinstance(body, dict):
        return False
    found = [body, *_objects(body.get("system")), *_objects(body.get("tools"))]
    for message in _objects(body.get("messages")):
        for block in _objects(message.get("content")):
            found += [block, *_objects(block.get("content"))]
    return any(item.get("cache_control") is not None for item in found)


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
