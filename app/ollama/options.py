"""`options`, `keep_alive`, `format`, `think`: what all of Ollama's requests to generate share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from ref_engine.errors import RefEngineError
from ref_engine.sample import SamplingParams

from ..fields import (
    HONOURED,
    IGNORED,
    INT_MAX,
    REFUSED,
    By,
    Field,
    Flag,
    Integer,
    Invalid,
    ListOf,
    Number,
    Only,
    Text,
    join,
    kind,
    read,
    shown,
)
from ..messages import AnyJson, JsonSchema, Output, Thinking

DEFAULTS = MappingProxyType({"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0})
"""Ollama's own (`DefaultOptions` in api/types.go), where neither the request nor the model says otherwise."""

UNLIMITED = INT_MAX
_INTEGERS = frozenset(f.name for f in fields(SamplingParams) if f.type in ("int", "int | None", int, int | None))
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def _sampling(name: str) -> By:
    """The check of SamplingParams itself, for one of its fields."""

    def check(value: object, where: str) -> object:
        if isinstance(value, float) and value.is_integer() and name in _INTEGERS:
            value = int(value)
        if name == "seed" and type(value) is int and -(2**63) <= value < -1:
            value = value % 2**64  # any 64 bits are a seed
        try:
            SamplingParams.from_options({name: value})
        except RefEngineError as error:
            raise Invalid(where, str(error)) from None
        return value

    return By("integer" if name in _INTEGERS else "number", check)


def _stop(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value] if value else []
    return tuple(ListOf(Text(1), high=1000)(value, where))


_SAMPLED = (
    "seed", "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "repeat_penalty",
    "presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta", "dynatemp_range",
    "dynatemp_exponent", "top_n_sigma", "xtc_probability", "xtc_threshold", "min_keep", "dry_multiplier", "dry_base",
    "dry_allowed_length", "dry_penalty_last_n",
)  # fmt: skip
_IGNORED_NUMBERS = (
    "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_gqa", "draft_num_predict", "tfs_z",
    "rope_frequency_base", "rope_frequency_scale",
)  # fmt: skip
_IGNORED_FLAGS = (
    "numa", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mmap", "use_mlock", "embedding_only",
    "penalize_newline",
)  # fmt: skip
OPTIONS = (
    *(Field(name, _sampling(name), HONOURED) for name in _SAMPLED),
    Field("num_predict", Integer(-2, INT_MAX), HONOURED, "negative: until the model ends or the context is full"),
    Field("num_ctx", Integer(1, INT_MAX), HONOURED, "tokens of prompt and answer, within the server's limit"),
    Field("stop", By("string or list of strings", _stop), HONOURED, "none of them is ever in the answer"),
    *(Field(name, Number(), IGNORED, "how this engine computes is set at its start") for name in _IGNORED_NUMBERS),
    *(Field(name, Flag(), IGNORED, "how this engine computes is set at its start") for name in _IGNORED_FLAGS),
)


@dataclass(frozen=True)
class Options:
    """The options of a request, sorted: for the sampler, and for the rest."""

    sampling: Mapping[str, object]
    max_tokens: int | None = None
    n_ctx: int | None = None
    stop: tuple[str, ...] = ()


def options(value: object, where: str) -> Options:
    values = read(value, OPTIONS, where)
    limit = values.get("num_predict")
    return Options(
        sampling={name: values[name] for name in _SAMPLED if name in values},
        max_tokens=UNLIMITED if limit is not None and limit < 0 else limit,
        n_ctx=values.get("num_ctx"),
        stop=values.get("stop", ()),
    )


def duration(value: object, where: str) -> float:
    """Seconds of a number, or of text as Go writes durations ("1h30m", "-1s", "0"); negative: infinity."""
    if isinstance(value, str):
        seconds = _parse_duration(value, where)
    else:
        seconds = Number()(value, where)
    return math.inf if seconds < 0 else seconds


def _parse_duration(text: str, where: str) -> float:
    body = text[1:] if text[:1] in "+-" else text
    parts = _PART.findall(body) if len(body) <= 100 else []
    if body != "0" and (not parts or "".join(number + unit for number, unit in parts) != body):
        raise Invalid(where, f'must be seconds, or a duration such as "5m" or "1h30m", not {shown(text)}')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -seconds if text.startswith("-") else seconds


def output(value: object, where: str) -> tuple[Output | None]:
    """`format`: "json", or a JSON schema; "" is none."""
    if isinstance(value, dict):
        return (JsonSchema(value),)
    if value == "json":
        return (AnyJson(),)
    if value == "":
        return (None,)
    raise Invalid(where, f'must be "json" or a JSON schema, not {shown(value)}')


def think(value: object, where: str) -> Thinking:
    """true, false, or how much: "low", "medium", "high", "max"."""
    if isinstance(value, bool):
        return Thinking(value)
    if value not in ("low", "medium", "high", "max"):
        what = shown(value) if isinstance(value, str) else kind(value)
        raise Invalid(where, f'must be true, false, "low", "medium", "high" or "max", not {what}')
    return Thinking(True, None, "high" if value == "max" else str(value))


def images(value: object, where: str) -> tuple[str, ...]:
    """Where the images are; what is in them does not matter until a model sees."""
    return tuple(join(where, i) for i, _ in enumerate(ListOf(Text(1))(value, where)))


KEEP_ALIVE = Field("keep_alive", By("number or string", duration), HONOURED, 'seconds, or "5m"; negative: for good')
MODEL = Field("model", Text(1, 300), HONOURED, "a name that `ref-engine list` shows", required=True)
SHARED = (
    MODEL,
    Field("stream", Flag(), HONOURED, "true by default"),
    Field("format", By("string or object", output), HONOURED, '"json" or a JSON schema; held by a grammar'),
    Field("options", By("object", options), HONOURED, "see below"),
    KEEP_ALIVE,
    Field("think", By("boolean or string", think), HONOURED, "no effect on a model that does not think"),
    Field("truncate", Flag(), HONOURED, "true by default: the oldest messages go where the context ends"),
    Field("shift", Flag(), IGNORED, "at the end of the context an answer ends"),
    Field("logprobs", Flag(), HONOURED),
    Field("top_logprobs", Integer(0, 20), HONOURED, "with logprobs"),
    Field("_debug_render_only", Only(False, "prompts are not shown here"), REFUSED),
)


def logprobs(values: Mapping[str, Any]) -> int | None:
    return values.get("top_logprobs", 0) if values.get("logprobs") else None
