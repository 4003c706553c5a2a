"""The input of POST /v1/responses: items of a conversation to neutral messages.

Reasoning, text and calls of the assistant are items of their own there; what stands together becomes one message.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from ..fields import (
    HONOURED,
    IGNORED,
    OBJECT,
    REFUSED,
    Anything,
    Field,
    Flag,
    Invalid,
    ListOf,
    Never,
    OneOf,
    Record,
    Text,
    choose,
    join,
    kind,
    read,
    shown,
)
from ..messages import Block, ImageBlock, Message, Role, TextBlock, ThinkingBlock, ToolCall, ToolResult
from .common import arguments_of

MAX_REASONING = 4_000_000  # characters that encrypted_content may unpack to
_TYPE = Field("type", Text(), HONOURED)
_STATUS = Field("status", OneOf(("in_progress", "completed", "incomplete")), IGNORED)
_ID = Field("id", Text(), IGNORED)
_CALLER = Field("caller", OBJECT, IGNORED)
_BREAKPOINT = Field("prompt_cache_breakpoint", OBJECT, IGNORED, "every prompt is cached")

PARTS: Mapping[str, tuple[Field, ...]] = {
    "input_text": (_TYPE, Field("text", Text(), HONOURED, required=True), _BREAKPOINT),
    "output_text": (
        _TYPE,
        Field("text", Text(), HONOURED, required=True),
        Field("annotations", ListOf(OBJECT), IGNORED),
        Field("logprobs", ListOf(OBJECT), IGNORED),
    ),
    "refusal": (_TYPE, Field("refusal", Text(), HONOURED, required=True)),
    "input_image": (
        _TYPE,
        Field("image_url", Text(), HONOURED, "needs a model that sees"),
        Field("file_id", Text(), HONOURED, "needs a model that sees"),
        Field("detail", Text(), IGNORED),
        _BREAKPOINT,
    ),
    "input_file": (_TYPE, Field("file_data", Never("files cannot be read here"), REFUSED)),
}
ITEMS: Mapping[str, tuple[Field, ...]] = {
    "message": (
        _TYPE,
        Field("role", OneOf(("user", "assistant", "system", "developer")), HONOURED, required=True),
        Field("content", Anything("string or list of parts"), HONOURED, required=True),
        Field("phase", OneOf(("commentary", "final_answer")), IGNORED),
        _ID,
        _STATUS,
    ),
    "function_call": (
        _TYPE,
        Field("call_id", Text(1, 256), HONOURED, required=True),
        Field("name", Text(1, 200), HONOURED, required=True),
        Field("arguments", Text(), HONOURED, "JSON in a string", required=True),
        Field("async", Flag(), IGNORED),
        Field("namespace", Text(), IGNORED),
        _ID,
        _STATUS,
        _CALLER,
    ),
    "function_call_output": (
        _TYPE,
        Field("call_id", Text(1, 256), HONOURED, required=True),
        Field("output", Anything("string or list of input_text"), HONOURED, required=True),
        Field("name", Text(), HONOURED),
        Field("namespace", Text(), IGNORED),
        _ID,
        _STATUS,
        _CALLER,
    ),
    "reasoning": (
        _TYPE,
        Field("summary", ListOf(OBJECT), HONOURED, "where there is nothing else"),
        Field("content", ListOf(OBJECT), HONOURED),
        Field("encrypted_content", Text(), HONOURED, "of this server; another's cannot be read"),
        _ID,
        _STATUS,
    ),
}
ELSEWHERE = (
    "item_reference", "file_search_call", "computer_call", "computer_call_output", "web_search_call",
    "tool_search_call", "tool_search_output", "additional_tools", "configuration_update", "compaction",
    "compaction_trigger", "image_generation_call", "code_interpreter_call", "local_shell_call",
    "local_shell_call_output", "shell_call", "shell_call_output", "apply_patch_call", "apply_patch_call_output",
    "mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "mcp_call", "custom_tool_call",
    "custom_tool_call_output", "program", "program_output",
)  # fmt: skip
"""Items of tools that are not functions, and of stored conversations."""


def items(value: object, where: str) -> tuple[Message, ...]:
    """The conversation of an input: a string is the user's."""
    if isinstance(value, str):
        return (Message("user", (TextBlock(Text(1)(value, where)),)),)
    if not isinstance(value, list) or not value:
        raise Invalid(where, f"must be a string or a list that is not empty, not {kind(value)}")
    messages: list[Message] = []
    calls: set[str] = set()
    for i, item in enumerate(value):
        role, blocks = _item(item, join(where, i))
        for block in blocks:
            if isinstance(block, ToolResult) and block.id not in calls:
                raise Invalid(f"{where}.{i}.call_id", f"{shown(block.id)} is no function_call before it")
            if isinstance(block, ToolCall):
                calls.add(block.id)
        if messages and role in ("assistant", "tool") and messages[-1].role == role:
            messages[-1] = Message(role, (*messages[-1].blocks, *blocks))
        else:
            messages.append(Message(role, blocks))
    return tuple(messages)


def _item(value: object, where: str) -> tuple[Role, tuple[Block, ...]]:
    if isinstance(value, dict) and "type" not in value:
        value = {"type": "message", **value}

    def of(name: str) -> Callable[[dict[str, Any], str], tuple[Role, tuple[Block, ...]]]:
        return lambda value, where: _read_item(name, read(value, ITEMS[name], where), where)

    def refuse(value: dict[str, Any], where: str) -> tuple[Role, tuple[Block, ...]]:
        raise Invalid(f"{where}.type", f"{value['type']} is not supported: tools are functions here", "unsupported")

    variants = {**dict.fromkeys(ELSEWHERE, refuse), **{name: of(name) for name in ITEMS}}
    item: tuple[Role, tuple[Block, ...]] = choose(value, where, "type", variants)
    return item


def _read_item(name: str, fields: dict[str, Any], where: str) -> tuple[Role, tuple[Block, ...]]:
    if name == "message":
        role: Role = "system" if fields["role"] == "developer" else fields["role"]
        return role, tuple(_parts(fields["content"], f"{where}.content"))
    if name == "function_call":
        arguments = arguments_of(fields["arguments"], f"{where}.arguments")
        return "assistant", (ToolCall(fields["call_id"], fields["name"], arguments),)
    if name == "function_call_output":
        parts = _parts(fields["output"], f"{where}.output")
        if any(isinstance(block, ImageBlock) for block in parts):
            raise Invalid(f"{where}.output", "a tool can only answer with text", "unsupported")
        text = "".join(block.text for block in parts if isinstance(block, TextBlock))
        return "tool", (ToolResult(fields["call_id"], text, name=fields.get("name")),)
    text = _reasoning(fields, where)
    return "assistant", (ThinkingBlock(text),) if text else ()


def _parts(value: object, where: str) -> list[Block]:
    if isinstance(value, str):
        return [TextBlock(value)] if value else []
    if not isinstance(value, list):
        raise Invalid(where, f"must be a string or a list of parts, not {kind(value)}")

    def of(fields: tuple[Field, ...]) -> Callable[[dict[str, Any], str], dict[str, Any]]:
        return lambda value, where: read(value, fields, where)

    blocks: list[Block] = []
    for i, item in enumerate(value):
        if isinstance(item, dict) and item.get("type") == "input_file":
            raise Invalid(join(where, i), "input_file is not supported: files cannot be read here", "unsupported")
        part = choose(item, join(where, i), "type", {name: of(fields) for name, fields in PARTS.items()})
        if part["type"] == "input_image":
            blocks.append(ImageBlock(join(where, i)))
        else:
            blocks.append(TextBlock(part["refusal"] if part["type"] == "refusal" else part["text"]))
    return blocks


_TEXT_PART = Record((_TYPE, Field("text", Text(), HONOURED, required=True)))


def _reasoning(fields: dict[str, Any], where: str) -> str:
    texts = {
        name: "".join(part["text"] for part in ListOf(_TEXT_PART)(fields.get(name, []), join(where, name)))
        for name in ("content", "summary")
    }
    return texts["content"] or unseal(fields.get("encrypted_content", "")) or texts["summary"]


def seal(reasoning: str) -> str:
    """`encrypted_content`: the text, packed. There is no secret in it: who asks for it has seen the reasoning."""
    return base64.b64encode(zlib.compress(reasoning.encode(), 6)).decode()


def unseal(content: str) -> str:
    """The text in `encrypted_content`; "" for one that another server made."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(content, validate=True), MAX_REASONING)
        return data.decode() if unpacker.eof else ""
    except (binascii.Error, zlib.error, ValueError):
        return ""
