"""POST /api/lens/...: the fields of each request, and the text that it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ApiError
from ..fields import HONOURED, IGNORED, INT_MAX, Field, Flag, Integer, ListOf, Number, OneOf, Record, Text, read
from ..messages import Message, Request, Role, TextBlock

MAX_TOKENS = 1024
"""Tokens of a text that is looked at."""
MAX_NUMBERS = 200_000
"""Numbers in an answer."""
MAX_SCORES = 400_000_000
"""Logits that a logit lens computes: layers x positions x vocabulary."""
MAX_SIZE = 512
"""Rows and columns of one attention map."""
MAX_REPEAT = 10

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_MESSAGE = (
    Field("role", OneOf(tuple(_ROLES)), HONOURED, required=True),
    Field("content", Text(), HONOURED, required=True),
)
_MODEL = Field("model", Text(1, 300), HONOURED, required=True)
_TEXT = (
    Field("tokens", ListOf(Integer(0, INT_MAX), 1), HONOURED, "the text as token ids, just these"),
    Field("prompt", Text(), HONOURED, "the text as text"),
    Field("raw", Flag(), HONOURED, "of `prompt`: true, the default, as it is; false: a user's message"),
    Field("messages", ListOf(Record(_MESSAGE), 1, 1000), HONOURED, "a conversation, written by the model's template"),
)
_START = Field("start", Integer(0, INT_MAX), HONOURED, "the first position wanted; 0")
_STOP = Field("stop", Integer(1, INT_MAX), HONOURED, "the position behind the last one wanted; all")
_WINDOW = (_START, _STOP)
_UNUSED = tuple(Field(field.name, field.check, IGNORED) for field in _WINDOW)
_COMMON = (_MODEL, *_TEXT, *_WINDOW)

TOKENS_FIELDS = (*_COMMON, Field("top", Integer(0, 20), HONOURED, "alternatives; 5"))
LAYERS_FIELDS = (*_COMMON, Field("top", Integer(1, 10), HONOURED, "tokens in a cell; 5"))
ATTENTION_FIELDS = (
    *_COMMON,
    Field("layer", Integer(0, INT_MAX), HONOURED, required=True),
    Field("head", Integer(0, INT_MAX), HONOURED, "without it: all heads"),
    Field("size", Integer(1, MAX_SIZE), HONOURED, "rows and columns of a map at most; 64"),
)
EXPERTS_FIELDS = _COMMON
NORMS_FIELDS = (
    *_COMMON,
    Field("names", ListOf(Text(1, 60, r"[\w.]+"), 1, 12), HONOURED, "of values, without the layer's number"),
)
TIMES_FIELDS = (
    _MODEL, *_TEXT, *_UNUSED,
    Field("repeat", Integer(1, MAX_REPEAT), HONOURED, "passes, of which the quickest counts; 3"),
    Field("phase", OneOf(("prompt", "token")), HONOURED, "the whole text, which is the default, or its last token"),
)  # fmt: skip
MODEL_FIELDS = (_MODEL, *(Field(f.name, f.check, IGNORED) for f in (*_TEXT, *_WINDOW)))
GENERATE_FIELDS = (
    _MODEL, *_TEXT,
    Field("max_tokens", Integer(1, INT_MAX), HONOURED, "128"),
    Field("temperature", Number(0, 100), HONOURED, "0: always the likeliest token; the model's own, else 0"),
    Field("top_p", Number(0, 1), HONOURED),
    Field("top_k", Integer(0, INT_MAX), HONOURED),
    Field("seed", Integer(), HONOURED),
    Field("top", Integer(0, 20), HONOURED, "alternatives; 5"),
)  # fmt: skip

ENDPOINTS: Mapping[str, Sequence[Field]] = {
    "tokens": TOKENS_FIELDS,
    "layers": LAYERS_FIELDS,
    "attention": ATTENTION_FIELDS,
    "experts": EXPERTS_FIELDS,
    "norms": NORMS_FIELDS,
    "times": TIMES_FIELDS,
    "memory": MODEL_FIELDS,
    "shape": MODEL_FIELDS,
    "generate": GENERATE_FIELDS,
}


@dataclass(frozen=True)
class Look:
    """A request to look at something. text: None where it is about the model alone. values: all checked fields."""

    model: str
    text: Request | None
    values: Mapping[str, Any]

    @property
    def start(self) -> int | None:
        start: int | None = self.values.get("start")
        return start

    @property
    def stop(self) -> int | None:
        stop: int | None = self.values.get("stop")
        return stop


def parse(body: object, name: str) -> Look:
    """The request for one of ENDPOINTS. Raises Invalid."""
    fields = ENDPOINTS[name]
    values = read(body, fields)
    return Look(values["model"], None if fields is MODEL_FIELDS else _text(values), values)


def _text(values: Mapping[str, Any]) -> Request:
    given = [name for name in ("tokens", "prompt", "messages") if name in values]
    if len(given) != 1:
        which = " and ".join(given) or "none"
        raise ApiError("invalid", f"give one of tokens, prompt and messages, not {which}", given[-1] if given else None)
    model = values["model"]
    if "tokens" in values:
        return Request(model, prompt=tuple(values["tokens"]))
    if "prompt" in values and values.get("raw", True):
        return Request(model, prompt=values["prompt"])
    turns = values.get("messages") or [{"role": "user", "content": values["prompt"]}]
    messages = tuple(Message(_ROLES[turn["role"]], (TextBlock(turn["content"]),)) for turn in turns)
    return Request(model, messages=messages, prefill=messages[-1].role == "assistant")  # a reply is not followed by one
