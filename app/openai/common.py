"""What the endpoints of the OpenAI dialect share: sampling fields, tools, formats, errors, token probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..errors import ApiError, ErrorKind
from ..fields import (
    HONOURED,
    IGNORED,
    INT_MAX,
    OBJECT,
    By,
    Field,
    Flag,
    Integer,
    Invalid,
    ListOf,
    Mapped,
    Number,
    OneOf,
    Text,
    join,
    kind,
    parse_json,
    read,
    shown,
)
from ..messages import AnyJson, DoneReason, JsonSchema, Output, Thinking, TokenInfo, ToolDef, Usage

Json = dict[str, Any]

DEFAULTS = MappingProxyType({"temperature": 1.0, "top_k": 40, "top_p": 1.0, "min_p": 0.0})
"""Where neither the request nor the model says otherwise; the real service has no top_k."""

FINGERPRINT = "fp_ref_engine"
FINISH_REASON: Mapping[DoneReason, str] = {
    "stop": "stop",
    "length": "length",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "cancelled": "stop",
}
_ERROR_TYPE: Mapping[ErrorKind, str] = {
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "overloaded": "overloaded_error",
    "internal": "server_error",
}
_ERROR_CODE: Mapping[ErrorKind, str] = {
    "unsupported": "unsupported_parameter",
    "context_full": "context_length_exceeded",
    "unauthorized": "invalid_api_key",
    "overloaded": "overloaded",
    "internal": "server_error",
}

NAME = Text(1, 128, r"[a-zA-Z0-9_.-]+")
FUNCTION = (
    Field("name", NAME, HONOURED, required=True),
    Field("description", Text(), HONOURED),
    Field("parameters", OBJECT, HONOURED, "a JSON schema of type object; without it: no arguments"),
    Field("strict", Flag(), HONOURED, "calls obey the schema, by a grammar"),
)
JSON_SCHEMA = (
    Field("name", Text(1, 64, r"[a-zA-Z0-9_-]+"), HONOURED, required=True),
    Field("description", Text(), IGNORED),
    Field("schema", OBJECT, HONOURED, "the answer obeys it, by a grammar"),
    Field("strict", Flag(), IGNORED, "the schema always holds"),
)
EFFORT = OneOf(("none", "minimal", "low", "medium", "high", "xhigh", "max"))


def _stop(value: object, where: str) -> tuple[str, ...]:
    return tuple(ListOf(Text(1, 1000), high=1000)([value] if isinstance(value, str) else value, where))


def _bias(value: object, where: str) -> dict[int, float]:
    """Token ids, as JSON has to write them, to addends."""
    biases = {}
    for name, bias in Mapped(Number(-100, 100))(value, where).items():
        if not (name.isascii() and name.isdigit() and len(name) <= 10):
            raise Invalid(join(where, name), "is not a token id")
        biases[int(name)] = bias
    return biases


SAMPLING = (
    Field("temperature", Number(0, 2), HONOURED, "1 by default, where the model does not say otherwise"),
    Field("top_p", Number(0, 1), HONOURED),
    Field("frequency_penalty", Number(-2, 2), HONOURED),
    Field("presence_penalty", Number(-2, 2), HONOURED),
    Field("logit_bias", By("object of token ids", _bias), HONOURED, "-100 to 100"),
    Field("seed", Integer(-(2**63), 2**63 - 1), HONOURED, "the same seed gives the same answer"),
    Field("top_k", Integer(0, INT_MAX), HONOURED, "not OpenAI's"),
    Field("min_p", Number(0, 1), HONOURED, "not OpenAI's"),
    Field("repeat_penalty", Number(0.01, 100), HONOURED, "not OpenAI's"),
)
STOP = Field("stop", By("string or list of strings", _stop), HONOURED, "none of them is ever in the answer")
STREAM_OPTIONS = (
    Field("include_usage", Flag(), HONOURED, "a last chunk with token counts"),
    Field("include_obfuscation", Flag(), IGNORED),
)
METADATA = Mapped(Text(0, 512))
MODEL = Field("model", Text(1, 300), HONOURED, "a name that `ref-engine list` shows", required=True)
KEEP_ALIVE = Field(
    "keep_alive", Number(), HONOURED, "not OpenAI's: seconds that the model stays loaded; negative: ever"
)


def sampling(values: Mapping[str, Any]) -> dict[str, object]:
    """Those fields of SAMPLING that are there, as SamplingParams has them."""
    chosen = {field.name: values[field.name] for field in SAMPLING if field.name in values}
    if "seed" in chosen:
        chosen["seed"] %= 2**64  # any 64 bits are a seed
    return chosen


def keep_alive(values: Mapping[str, Any]) -> float | None:
    seconds = values.get("keep_alive")
    return math.inf if seconds is not None and seconds < 0 else seconds


def function_tool(fields: Mapping[str, Any], where: str) -> ToolDef:
    schema = fields.get("parameters", {"type": "object", "properties": {}})
    if schema.get("type", "object") != "object":
        raise Invalid(join(where, "parameters.type"), f'must be "object", not {shown(schema["type"])}')
    return ToolDef(fields["name"], fields.get("description", ""), schema, fields.get("strict", False))


def check_names(tools: Sequence[ToolDef]) -> None:
    names = [tool.name for tool in tools]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise Invalid(f"tools.{i}", f"the name {shown(name)} is there twice")


def output_format(value: object, where: str, schema_of: str | None) -> Output | None:
    """text, json_object or json_schema; `schema_of`: the field that the schema's fields are in, None: beside type."""
    if not isinstance(value, dict):
        raise Invalid(where, f"must be an object, not {kind(value)}")
    of = value.get("type")
    if of not in ("text", "json_object", "json_schema"):
        raise Invalid(join(where, "type"), f"must be one of text, json_object, json_schema, not {shown(of)}")
    one = Field("type", Text(), HONOURED)
    if of != "json_schema":
        read(value, (one,), where)
        return AnyJson() if of == "json_object" else None
    if schema_of is None:
        fields = read(value, (one, *JSON_SCHEMA), where)
    else:
        outer = (one, Field(schema_of, OBJECT, HONOURED, required=True))
        inner = read(value, outer, where)[schema_of]
        where = join(where, schema_of)
        fields = read(inner, JSON_SCHEMA, where)
    if "schema" not in fields:
        raise Invalid(join(where, "schema"), "is required")
    return JsonSchema(fields["schema"], fields["name"])


def thinking_of(effort: str | None) -> Thinking:
    """none turns thinking off, anything else on; no effort leaves it to the model's template."""
    if effort is None:
        return Thinking()
    if effort == "none":
        return Thinking(False)
    return Thinking(True, None, {"minimal": "low", "xhigh": "high", "max": "high"}.get(effort, effort))


def arguments_of(text: str, where: str) -> Json:
    """The arguments of a call in the history, which this API writes as JSON in a string."""
    value = parse_json((text or "{}").encode(), where)
    if not isinstance(value, dict):
        raise Invalid(where, f"must be the JSON of an object, not of {kind(value)}")
    return value


def error_body(error: ApiError) -> Json:
    kind_of = _ERROR_TYPE.get(error.kind, "invalid_request_error")
    code = _ERROR_CODE.get(error.kind, "model_not_found" if error.param == "model" else None)
    return {"error": {"message": error.message, "type": kind_of, "param": error.param, "code": code}}


def usage_body(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.thinking_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def summed(usages: Sequence[Usage], prompts: int = 1) -> Usage:
    """Of several choices: each prompt counts once, with the first of its choices."""
    each = len(usages) // prompts
    firsts = usages[::each]
    return Usage(
        sum(usage.prompt_tokens for usage in firsts),
        sum(usage.cached_tokens for usage in firsts),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.thinking_tokens for usage in usages),
    )


def token_body(token: TokenInfo) -> Json:
    """A token and the likeliest in its place. Bytes that are no text by themselves are shown as U+FFFD."""
    return {**_one(token), "top_logprobs": [_one(other) for other in token.top]}


def _one(token: TokenInfo) -> Json:
    text = token.raw.decode("utf-8", "replace")
    return {"token": text, "logprob": finite(token.logprob), "bytes": list(token.raw)}


def finite(logprob: float) -> float:
    """JSON has no infinity; the real service writes -9999 for what cannot be."""
    return max(logprob, -9999.0)
