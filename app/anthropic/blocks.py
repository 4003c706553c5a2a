"""Content blocks of the Messages API to neutral blocks.

A block that only Anthropic's own servers can make sense of (web search, code execution, uploaded files) is refused by
its type; documents are accepted as text, because a model here reads text.
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
    Never,
    OneOf,
    Only,
    Record,
    Text,
    choose,
    kind,
    read,
    shown,
)
from ..messages import Block, ImageBlock, TextBlock, ThinkingBlock, ToolCall, ToolResult

ID = Text(1, 256, r"[a-zA-Z0-9_-]+")
MAX_THINKING = 4_000_000  # characters that a signature may unpack to

CACHE_CONTROL = Record(
    (
        Field("type", OneOf(("ephemeral",)), HONOURED, required=True),
        Field("ttl", OneOf(("5m", "1h")), IGNORED),
    )
)
_CACHE = Field("cache_control", CACHE_CONTROL, HONOURED, "prompt tokens that are not reused count as cache creation")
_CITATIONS_OFF = Record((Field("enabled", Only(False, "answers here cite nothing"), REFUSED),))
_TYPE = Field("type", Text(1), HONOURED, required=True)

TEXT = (
    _TYPE,
    Field("text", Text(1), HONOURED, "not empty", required=True),
    Field("citations", Anything("list"), IGNORED, "of an earlier answer"),
    _CACHE,
)
IMAGE = (
    _TYPE,
    Field("source", OBJECT, HONOURED, "needs a model that sees; none does yet", required=True),
    Field("transformations", OBJECT, IGNORED),
    _CACHE,
)
DOCUMENT = (
    _TYPE,
    Field("source", OBJECT, HONOURED, "of type text or content; base64, url and file are refused", required=True),
    Field("title", Text(), HONOURED),
    Field("context", Text(), HONOURED),
    Field("citations", _CITATIONS_OFF, REFUSED, "`enabled` can only be false"),
    _CACHE,
)
PLAIN_SOURCE = (
    _TYPE,
    Field("media_type", OneOf(("text/plain",)), HONOURED, required=True),
    Field("data", Text(), HONOURED, required=True),
)
CONTENT_SOURCE = (_TYPE, Field("content", Anything("string or list of blocks"), HONOURED, required=True))
SEARCH_RESULT = (
    _TYPE,
    Field("content", Anything("list of text blocks"), HONOURED, required=True),
    Field("source", Text(), HONOURED, required=True),
    Field("title", Text(), HONOURED, required=True),
    Field("citations", _CITATIONS_OFF, REFUSED, "`enabled` can only be false"),
    _CACHE,
)
THINKING = (
    _TYPE,
    Field("thinking", Text(), HONOURED, required=True),
    Field("signature", Text(), HONOURED, "not checked; holds the text where `thinking` was omitted", required=True),
)
REDACTED = (_TYPE, Field("data", Text(), IGNORED, "can be read by those only who made it", required=True))
TOOL_USE = (
    _TYPE,
    Field("id", ID, HONOURED, required=True),
    Field("name", Text(1, 200), HONOURED, required=True),
    Field("input", OBJECT, HONOURED, required=True),
    Field("caller", OBJECT, IGNORED),
    Field("toolset_name", Never("there are no toolsets here"), REFUSED),
    _CACHE,
)
TOOL_RESULT = (
    _TYPE,
    Field("tool_use_id", ID, HONOURED, required=True),
    Field("content", Anything("string or list of blocks"), HONOURED, "blocks of text, documents, search results"),
    Field("is_error", Flag(), HONOURED),
    Field("toolset_name", Never("there are no toolsets here"), REFUSED),
    _CACHE,
)

BLOCKS: Mapping[str, tuple[Field, ...]] = {
    "text": TEXT,
    "image": IMAGE,
    "document": DOCUMENT,
    "search_result": SEARCH_RESULT,
    "thinking": THINKING,
    "redacted_thinking": REDACTED,
    "tool_use": TOOL_USE,
    "tool_result": TOOL_RESULT,
}
ELSEWHERE = (
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "tool_reference",
    "browser_state",
    "container_upload",
    "mcp_tool_use",
    "mcp_tool_result",
    "compaction",
)
"""Blocks of tools that run on Anthropic's servers."""

Reader = Callable[[dict[str, Any], str], list[Block]]


def blocks_of(value: object, where: str, variants: Mapping[str, Reader]) -> list[Block]:
    """A string, or a list of blocks each read by its type."""
    if isinstance(value, str):
        return [TextBlock(value)] if value else []
    if not isinstance(value, list):
        raise Invalid(where, f"must be a string or a list of blocks, not {kind(value)}")
    blocks: list[Block] = []
    for i, item in enumerate(value):
        blocks += choose(item, f"{where}.{i}", "type", variants)
    return blocks


def _text(value: dict[str, Any], where: str) -> list[Block]:
    return [TextBlock(read(value, TEXT, where)["text"])]


def _image(value: dict[str, Any], where: str) -> list[Block]:
    source = read(value, IMAGE, where)["source"]
    if source.get("type") not in ("base64", "url", "file"):
        raise Invalid(f"{where}.source.type", f"must be one of base64, url, file, not {shown(source.get('type'))}")
    return [ImageBlock(where)]


def _document(value: dict[str, Any], where: str) -> list[Block]:
    fields = read(value, DOCUMENT, where)
    source, at = fields["source"], f"{where}.source"
    of = source.get("type")
    if of == "text":
        text = read(source, PLAIN_SOURCE, at)["data"]
    elif of == "content":
        parts = blocks_of(
            read(source, CONTENT_SOURCE, at)["content"], f"{at}.content", {"text": _text, "image": _image}
        )
        text = _joined(parts, f"{at}.content")
    elif of in ("base64", "url", "file"):
        raise Invalid(f"{at}.type", f"{of} is not supported: a document must be text here", "unsupported")
    else:
        raise Invalid(f"{at}.type", f"must be one of text, content, base64, url, file, not {shown(of)}")
    return [TextBlock(_framed("document", text, title=fields.get("title"), context=fields.get("context")))]


def _search_result(value: dict[str, Any], where: str) -> list[Block]:
    fields = read(value, SEARCH_RESULT, where)
    text = _joined(blocks_of(fields["content"], f"{where}.content", {"text": _text}), where)
    return [TextBlock(_framed("search_result", text, source=fields["source"], title=fields["title"]))]


def _framed(name: str, text: str, **about: str | None) -> str:
    lines = [f"<{key}>{value}</{key}>" for key, value in about.items() if value]
    return "\n".join([f"<{name}>", *lines, text, f"</{name}>\n"])


def _joined(blocks: list[Block], where: str) -> str:
    for block in blocks:
        if isinstance(block, ImageBlock):
            raise Invalid(block.source, "an image is not supported here: no model sees yet", "unsupported")
    return "".join(block.text for block in blocks if isinstance(block, TextBlock))


def _thinking(value: dict[str, Any], where: str) -> list[Block]:
    fields = read(value, THINKING, where)
    text = fields["thinking"] or unsign(fields["signature"])
    return [ThinkingBlock(text, fields["signature"])] if text else []


def _redacted(value: dict[str, Any], where: str) -> list[Block]:
    read(value, REDACTED, where)
    return []


def _tool_use(value: dict[str, Any], where: str) -> list[Block]:
    fields = read(value, TOOL_USE, where)
    return [ToolCall(fields["id"], fields["name"], fields["input"])]


def _tool_result(value: dict[str, Any], where: str) -> list[Block]:
    fields = read(value, TOOL_RESULT, where)
    variants = {"text": _text, "image": _image, "document": _document, "search_result": _search_result}
    parts = blocks_of(fields.get("content", ""), f"{where}.content", {**variants, **_refusals()})
    return [ToolResult(fields["tool_use_id"], _joined(parts, where), fields.get("is_error", False))]


def _refuse(value: dict[str, Any], where: str) -> list[Block]:
    raise Invalid(f"{where}.type", f"{value['type']} is not supported: its tool runs elsewhere", "unsupported")


def _refusals() -> dict[str, Reader]:
    return dict.fromkeys(ELSEWHERE, _refuse)


SYSTEM: Mapping[str, Reader] = {"text": _text}
USER: Mapping[str, Reader] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "tool_result": _tool_result,
    **_refusals(),
}
ASSISTANT: Mapping[str, Reader] = {
    "text": _text,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
    "tool_use": _tool_use,
    **_refusals(),
}


def sign(thinking: str) -> str:
    """The signature of a thinking block: its text, packed, so that an omitted text comes back with the next turn."""
    return base64.b64encode(zlib.compress(thinking.encode(), 6)).decode()


def unsign(signature: str) -> str:
    """The text in a signature; "" for one that another server made."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(signature, validate=True), MAX_THINKING)
        return data.decode() if unpacker.eof else ""
    except (binascii.Error, zlib.error, ValueError):
        return ""
