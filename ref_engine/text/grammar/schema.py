"""JSON schemas: checked, made a little narrower where that changes nothing but keeps small models from rambling.

What is enforced is what llguidance knows of JSON Schema 2020-12
(https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md); a keyword that it cannot enforce is an error
that names it, unless the schema is asked for leniently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ref_engine.errors import GrammarError
from ref_engine.text.grammar.depth import depth
from ref_engine.text.grammar.string_formats import DATES, FORMATS

MAX_CHARS = 1 << 20  # of a schema as text
MAX_DEPTH = 256  # arrays and objects around each other in the schema, along references
# Between two tokens of JSON: nothing, a space, or a line break with its indentation. Free white space would let a
# model that has lost the thread write blanks for ever.
WHITE_SPACE = r"( |\n[ \t]{0,20})"
_COMBINED = ("allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "if", "dependentSchemas")


def schema_text(schema: object, *, lenient: bool = False) -> str:
    """The schema as JSON text for llguidance, with our options in it.

    lenient: keywords that cannot be enforced are ignored instead of refused, and oneOf counts as anyOf.
    Raises GrammarError for what is no schema, is too large, or refers to itself too deeply.
    """
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        raise GrammarError(f"a JSON schema is an object, not {schema!r:.100}")
    try:
        plain = json.loads(json.dumps(schema, allow_nan=False, default=dict))
        narrowed = _narrow(plain, closed=_may_narrow(plain))
        _check_depth(plain)
        options = {"whitespace_pattern": WHITE_SPACE}
        if lenient:
            options |= {"lenient": True, "coerce_one_of": True}  # type: ignore[dict-item]
        text = json.dumps(narrowed | {"x-guidance": options})
    except (ValueError, TypeError) as error:
        raise GrammarError(f"JSON schema: {error}") from error
    except RecursionError as error:
        raise GrammarError("JSON schema: nested too deep") from error
    if len(text) > MAX_CHARS:
        raise GrammarError(f"JSON schema: more than {MAX_CHARS} characters")
    return text


def _may_narrow(schema: Any) -> bool:
    """Whether no object's properties are spread over subschemas, each of which would shut out those of the others."""
    if isinstance(schema, list):
        return all(map(_may_narrow, schema))
    if not isinstance(schema, dict):
        return True
    if "allOf" in schema or ("properties" in schema and any(key in schema for key in _COMBINED)):
        return False
    return all(map(_may_narrow, schema.values()))


def _narrow(schema: Any, closed: bool) -> Any:
    """Dates that exist, and, where `closed`, objects without properties that they do not name.

    An object that names properties and does not speak of others gets no others, as OpenAI and llama.cpp have it.
    """
    if isinstance(schema, list):
        return [_narrow(item, closed) for item in schema]
    if not isinstance(schema, dict):
        return schema
    narrowed = {
        key: value if key in ("const", "enum", "default", "examples") else _narrow_value(key, value, closed)
        for key, value in schema.items()
    }
    if schema.get("format") in DATES and "pattern" not in schema:
        narrowed["pattern"] = f"^({FORMATS[narrowed.pop('format')]})$"
    if closed and _names_all(schema):
        narrowed["additionalProperties"] = False
    return narrowed


def _names_all(schema: dict[str, Any]) -> bool:
    """Whether an object's schema says what properties it may have, and leaves the others open without a word."""
    properties, required = schema.get("properties"), schema.get("required", [])
    spoken = ("additionalProperties", "patternProperties", "unevaluatedProperties", "minProperties")
    if not isinstance(properties, dict) or any(key in schema for key in spoken):
        return False
    return isinstance(required, list) and all(name in properties for name in required if isinstance(name, str))


def _narrow_value(key: str, value: Any, closed: bool) -> Any:
    """The schemas in `properties` and its like stand under names, which are no keywords."""
    if key in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, dict):
        return {name: _narrow(item, closed) for name, item in value.items()}
    return _narrow(value, closed)


def _check_depth(schema: Any) -> None:
    """References by pointer make a graph whose nodes are the places they point at."""
    weights: dict[str, int] = {"#": _height(schema)}
    edges: dict[str, set[str]] = {"#": set()}
    if "$defs" in schema or "definitions" in schema:  # their height counts where they are used
        weights["#"] = _height({k: v for k, v in schema.items() if k not in ("$defs", "definitions")})
    todo = ["#"]
    while todo:
        place = todo.pop()
        part = _at(schema, place)
        if place == "#" and isinstance(part, dict):
            part = {k: v for k, v in part.items() if k not in ("$defs", "definitions")}
        for target in _references(part):
            edges[place].add(target)
            if target not in edges:
                edges[target] = set()
                weights[target] = _height(_at(schema, target))
                todo.append(target)
    if depth(weights, edges, "#") > MAX_DEPTH:
        raise GrammarError(f"JSON schema: nested deeper than {MAX_DEPTH} levels, with what it refers to")


def _references(part: Any) -> set[str]:
    """What $ref names in here; another form than a pointer counts as the whole schema."""
    found: set[str] = set()
    todo = [part]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += item
        elif isinstance(item, dict):
            todo += item.values()
            for key in ("$ref", "$dynamicRef"):
                if isinstance(name := item.get(key), str):
                    found.add(name if name.startswith("#/") else "#")
    return found


def _at(schema: Any, pointer: str) -> Any:
    """The part that a JSON pointer (RFC 6901) names; the whole where there is none, which llguidance will refuse."""
    part = schema
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        else:
            return schema
    return part


def _height(value: Any) -> int:
    """How many arrays and objects stand in each other."""
    height, level = 0, [value]
    while level:
        level = [item for part in level for item in _items(part)]
        height += bool(level)
    return height


def _items(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in inner if isinstance(item, dict | list)]
