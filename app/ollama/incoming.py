"""POST /api/generate and /api/chat: the fields, and the neutral requests that they make."""

from __future__ import annotations

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
    Record,
    Text,
    join,
    read,
    shown,
)
from ..messages import (
    Block,
    ImageBlock,
    Message,
    Request,
    Role,
    TextBlock,
    Thinking,
    ThinkingBlock,
    ToolCall,
    ToolDef,
    ToolResult,
)
from .options import DEFAULTS, SHARED, Options, images, logprobs

_IMAGES = Field("images", By("list of base64", images), HONOURED, "needs a model that sees; none does yet")
_NO_PICTURES = "no model here makes images"

CALLED = (
    Field("name", Text(1, 200), HONOURED, required=True),
    Field("arguments", OBJECT, HONOURED),
    Field("index", Integer(0, INT_MAX), IGNORED),
    Field("description", Text(), IGNORED),
)
CALL = (
    Field("function", Record(CALLED), HONOURED, required=True),
    Field("id", Text(0, 256), HONOURED),
    Field("type", Text(), IGNORED),
)
MESSAGE = (
    Field("role", Text(1), HONOURED, "system, user, assistant, tool", required=True),
    Field("content", Text(), HONOURED),
    Field("thinking", Text(), HONOURED),
    _IMAGES,
    Field("tool_calls", ListOf(Record(CALL)), HONOURED),
    Field("tool_name", Text(), HONOURED, "whose answer a message of role tool is"),
    Field("tool_call_id", Text(), HONOURED),
    Field("name", Text(), HONOURED, "older name of tool_name"),
)
FUNCTION = (
    Field("name", Text(1, 200), HONOURED, required=True),
    Field("description", Text(), HONOURED),
    Field("parameters", OBJECT, HONOURED, "a JSON schema of type object; without it: no arguments"),
    Field("strict", Flag(), HONOURED, "calls obey the schema, by a grammar"),
)
TOOL = (
    Field("type", OneOf(("function",)), HONOURED),
    Field("function", Record(FUNCTION), HONOURED, required=True),
    Field("items", Anything(), IGNORED),
)


def messages(value: object, where: str) -> tuple[Message, ...]:
    return tuple(_message(item, join(where, i)) for i, item in enumerate(ListOf(OBJECT)(value, where)))


_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def _message(value: object, where: str) -> Message:
    fields = read(value, MESSAGE, where)
    role = _ROLES.get(fields["role"].lower())
    if role is None:
        raise Invalid(join(where, "role"), f"must be one of {', '.join(_ROLES)}, not {shown(fields['role'])}")
    text = fields.get("content", "")
    if role == "tool":
        name = fields.get("tool_name") or fields.get("name")
        return Message(role, (ToolResult(fields.get("tool_call_id", ""), text, name=name),))
    blocks: list[Block] = [ImageBlock(image) for image in fields.get("images", ())]
    if role == "assistant" and fields.get("thinking"):
        blocks.append(ThinkingBlock(fields["thinking"]))
    if text:
        blocks.append(TextBlock(text))
    if role == "assistant":
        for call in fields.get("tool_calls", ()):
            function = call["function"]
            blocks.append(ToolCall(call.get("id", ""), function["name"], function.get("arguments", {})))
    elif fields.get("tool_calls"):
        raise Invalid(join(where, "tool_calls"), "are only the assistant's")
    return Message(role, tuple(blocks))


def tools(value: object, where: str) -> tuple[ToolDef, ...]:
    result: list[ToolDef] = []
    for i, tool in enumerate(ListOf(Record(TOOL), high=10_000)(value, where)):
        function = tool["function"]
        at = join(where, i)
        schema = function.get("parameters", {"type": "object", "properties": {}})
        if schema.get("type", "object") != "object":
            raise Invalid(f"{at}.function.parameters.type", f'must be "object", not {shown(schema["type"])}')
        if any(other.name == function["name"] for other in result):
            raise Invalid(f"{at}.function.name", f"{shown(function['name'])} is there twice")
        result.append(ToolDef(function["name"], function.get("description", ""), schema, function.get("strict", False)))
    return tuple(result)


def _context(value: object, where: str) -> tuple[int, ...]:
    return tuple(ListOf(Integer(0, INT_MAX), high=10_000_000)(value, where))


CHAT_FIELDS = (
    *SHARED,
    Field("messages", By("list of messages", messages), HONOURED, "empty: load the model, or unload it"),
    Field("tools", By("list of tools", tools), HONOURED),
)
GENERATE_FIELDS = (
    *SHARED,
    Field("prompt", Text(), HONOURED, "empty: load the model, or unload it"),
    Field("suffix", Text(), HONOURED, "needs a model with fill-in-the-middle tokens"),
    Field("system", Text(), HONOURED, "instead of the model's own"),
    Field("template", Text(), HONOURED, "Jinja, as in model files, not Go's"),
    Field("context", By("list of token ids", _context), HONOURED, "of an earlier answer"),
    Field("raw", Flag(), HONOURED, "not together with system, template, context"),
    _IMAGES,
    Field("width", Never(_NO_PICTURES), REFUSED),
    Field("height", Never(_NO_PICTURES), REFUSED),
    Field("steps", Never(_NO_PICTURES), REFUSED),
)


@dataclass(frozen=True)
class Call:
    """`request` None: only load the model `model` (or unload it, where keep_alive is 0)."""

    model: str
    keep_alive: float | None
    stream: bool
    request: Request | None
    raw: bool = False


def parse_chat(body: object) -> Call:
    values = read(body, CHAT_FIELDS)
    history: tuple[Message, ...] = values.get("messages", ())
    shared = _shared(values)
    if not history:
        return Call(values["model"], values.get("keep_alive"), shared["stream"], None)
    last = history[-1]
    prefill = last.role == "assistant" and bool(last.blocks) and isinstance(last.blocks[-1], TextBlock)
    request = Request(messages=history, tools=values.get("tools", ()), prefill=prefill, **shared)
    return Call(values["model"], values.get("keep_alive"), request.stream, request)


def parse_generate(body: object) -> Call:
    values = read(body, GENERATE_FIELDS)
    shared = _shared(values)
    prompt, raw = values.get("prompt", ""), values.get("raw", False)
    if raw:
        for name in ("template", "system", "context"):
            if values.get(name):
                raise Invalid(name, "cannot be there in raw mode")
    if not prompt:
        return Call(values["model"], values.get("keep_alive"), shared["stream"], None)
    if raw or values.get("suffix"):
        if values.get("images"):
            raise Invalid("images", "cannot be there together with raw or suffix", "unsupported")
        request = Request(prompt=prompt, suffix=values.get("suffix") or None, **shared)
        return Call(values["model"], values.get("keep_alive"), request.stream, request, raw=True)
    blocks: list[Block] = [ImageBlock(image) for image in values.get("images", ())]
    history = [Message("user", (*blocks, TextBlock(prompt)))]
    if values.get("system"):
        history.insert(0, Message("system", (TextBlock(values["system"]),)))
    request = Request(
        messages=tuple(history),
        template=values.get("template") or None,
        context=values.get("context", ()),
        **shared,
    )
    return Call(values["model"], values.get("keep_alive"), request.stream, request)


def _shared(values: dict[str, Any]) -> dict[str, Any]:
    """What both requests have in common, as arguments of Request."""
    chosen: Options = values.get("options", Options({}))
    if values.get("top_logprobs") and not values.get("logprobs"):
        raise Invalid("top_logprobs", "needs logprobs to be true")
    return {
        "model": values["model"],
        "sampling": chosen.sampling,
        "defaults": DEFAULTS,
        "max_tokens": chosen.max_tokens,
        "stop": chosen.stop,
        "n_ctx": chosen.n_ctx,
        "thinking": values.get("think", Thinking()),
        "output": values.get("format", (None,))[0],
        "logprobs": logprobs(values),
        "truncate": values.get("truncate", True),
        "keep_alive": values.get("keep_alive"),
        "stream": values.get("stream", True),
    }
