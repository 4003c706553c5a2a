"""What the schema of a tool says of its arguments: their types, and a grammar of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ref_engine.text.chat.tools.parts import Tool
from ref_engine.text.grammar.schema import schema_text

_MAX_HOPS = 16  # references from one to the next


def arguments_schema(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments, which are an object also where it does not say so."""
    schema = dict(tool.parameters)
    if not any(key in schema for key in ("type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const")):
        schema["type"] = "object"
    if schema.get("type") == "object" and "properties" not in schema:
        schema.setdefault("properties", {})
    return schema


def arguments_lark(tool: Tool) -> str:
    """The right-hand side of a rule for the arguments as JSON. Raises GrammarError."""
    return "%json " + schema_text(arguments_schema(tool), lenient=not getattr(tool, "strict", False))


def parameter_schema(tool: Tool, name: str) -> Mapping[str, Any]:
    """The schema of one parameter, references of the tool's schema followed; {} where there is none."""
    root = arguments_schema(tool)
    properties = resolved(root, root).get("properties")
    schema = properties.get(name) if isinstance(properties, Mapping) else None
    return resolved(root, schema) if isinstance(schema, Mapping) else {}


def resolved(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a $ref by pointer stands for."""
    for _ in range(_MAX_HOPS):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        found: Any = root
        for step in reference.split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            break
        schema = found
    return schema


def types_of(root: Mapping[str, Any], schema: Mapping[str, Any], hops: int = _MAX_HOPS) -> set[str]:
    """The JSON types that a schema admits, as far as it says so; empty where it does not say."""
    schema = resolved(root, schema)
    kind = schema.get("type")
    if isinstance(kind, str):
        return {kind}
    if isinstance(kind, list):
        return {name for name in kind if isinstance(name, str)}
    values = schema.get("enum") if isinstance(schema.get("enum"), list) else None
    if values is None and "const" in schema:
        values = [schema["const"]]
    if values is not None:
        return {_type_of(value) for value in values}
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list) and hops:
            found = [types_of(root, option, hops - 1) for option in options if isinstance(option, Mapping)]
            return set().union(*found) if all(found) else set()
    return set()


def _type_of(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case None:
            return "null"
        case _:
            return "object"
