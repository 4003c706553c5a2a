"""Schemas drawn at random, the same for the same seed: what people ask small models for, and a little more."""

from __future__ import annotations

import random
from typing import Any

_NAMES = ["name", "city", "count", "price", "tags", "active", "kind", "notes", "when", "owner", "items", "level"]


def draw_schema(seed: int) -> dict[str, Any]:
    """The schema of an object with one to five properties, some of them nested."""
    return _object(random.Random(seed), depth=2)


def _object(draw: random.Random, depth: int) -> dict[str, Any]:
    names = draw.sample(_NAMES, draw.randint(1, 5 if depth == 2 else 3))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _any(draw, depth - 1) for name in names},
        "required": [name for name in names if draw.random() < 0.8] or names[:1],
    }
    if draw.random() < 0.5:
        schema["additionalProperties"] = False
    return schema


def _any(draw: random.Random, depth: int) -> dict[str, Any]:
    kinds = [_text, _text, _number, _number, _word, _flag, _format, _pattern]
    if depth > 0:
        kinds += [_list, _object, _either]
    kind = draw.choice(kinds)
    return kind(draw, depth)


def _text(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "string", **draw.choice([{}, {"maxLength": 20}, {"minLength": 3, "maxLength": 12}])}


def _number(draw: random.Random, depth: int) -> dict[str, Any]:
    low = draw.randint(-20, 20)
    bounds = draw.choice([{}, {"minimum": low}, {"minimum": low, "maximum": low + 50}, {"exclusiveMinimum": low}])
    return {"type": draw.choice(["integer", "number"]), **bounds}


def _word(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "string", "enum": draw.sample(["red", "green", "a b", "naïve", '"q"', "0"], 3)}


def _flag(draw: random.Random, depth: int) -> dict[str, Any]:
    return draw.choice([{"type": "boolean"}, {"const": True}, {"type": ["boolean", "null"]}])


def _format(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "string", "format": draw.choice(["date", "time", "uuid", "ipv4", "email"])}


def _pattern(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "string", "pattern": draw.choice([r"^[A-Z]{3}-\d{2,4}$", r"^(ab|cd)+$", r"^\+?\d{5,10}$"])}


def _list(draw: random.Random, depth: int) -> dict[str, Any]:
    low = draw.randint(0, 2)
    return {"type": "array", "items": _any(draw, depth - 1), "minItems": low, "maxItems": low + draw.randint(1, 3)}


def _either(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [_any(draw, depth - 1), {"type": "null"}]}
