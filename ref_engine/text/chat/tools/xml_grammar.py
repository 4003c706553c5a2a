"""A grammar of arguments that stand between tags of their own: each value by its schema, a text without quotes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ref_engine.errors import GrammarError
from ref_engine.text.chat.tools.parts import Tool
from ref_engine.text.chat.tools.schemas import arguments_schema, parameter_schema, resolved, types_of
from ref_engine.text.grammar.lark import Literals, regex
from ref_engine.text.grammar.schema import schema_text
from ref_engine.text.grammar.string_formats import FORMATS

if TYPE_CHECKING:
    from ref_engine.text.chat.tools.xml_calls import XmlCalls

_ANYTHING = r"(.|\n)*"
_COMBINED = ("allOf", "anyOf", "oneOf", "not", "if")


def value_rules(tool: Tool, prefix: str, form: XmlCalls, literal: Literals, rules: list[str]) -> str:
    """What stands between the name and the end of a call; adds the rules that it needs, named with `prefix`.

    Arguments come in the order of the schema. Raises GrammarError for a schema that is no object with properties.
    """
    root = arguments_schema(tool)
    schema = resolved(root, root)
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        raise GrammarError(f"tool {tool.name!r}: its parameters are no object with properties")
    required = schema.get("required", [])
    if not isinstance(required, list):
        raise GrammarError(f"tool {tool.name!r}: 'required' is no list")
    names = [*properties, *(name for name in required if isinstance(name, str) and name not in properties)]
    pieces = []
    for i, name in enumerate(names):
        rule = f"{prefix}_{i}"
        text_only = types_of(root, parameter_schema(tool, name)) == {"string"}
        key_end = form.key_end if form.typed is None else form.typed[0 if text_only else 1]
        value = _text_rule(tool, name, rule, form.value_end, literal, rules) if text_only else ""
        if not text_only:
            rules.append(f"{rule}: %json {_json_schema(root, parameter_schema(tool, name))}")
            value = f"{rule} {literal(form.value_end)}"
        pieces.append(f"({literal(form.key_begin + name + key_end)} {value}){'' if name in required else '?'}")
    return " ".join(pieces)


def _json_schema(root: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A part of a schema as a whole one: with the definitions that it may refer to."""
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return schema_text({**schema, **definitions}, lenient=True)


def _text_rule(tool: Tool, name: str, rule: str, end: str, literal: Literals, rules: list[str]) -> str:
    """A text and the tag that ends it, as one lexeme: so it holds no such tag, whatever the schema allows."""
    schema = parameter_schema(tool, name)
    if (found := [key for key in _COMBINED if key in schema]) and getattr(tool, "strict", False):
        raise GrammarError(f"tool {tool.name!r}: parameter {name!r}: {found[0]} of texts cannot be enforced")
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list):
        texts = [value for value in values if isinstance(value, str)]
        if not texts:
            raise GrammarError(f"tool {tool.name!r}: parameter {name!r} has no value that it may have")
        return "(" + " | ".join(literal(text + end) for text in texts) + ")"
    plain, control = literal.before_control(end)
    closing, tag = _escaped(plain), _escaped(plain.strip())
    patterns = [f"/{part}{closing}/" for part in _constraints(schema, tool.name, name)]
    if tag:  # once, and that at the end: a reader takes the first one, with white space before it or without
        patterns.append(f"~/{_ANYTHING}{tag}{_ANYTHING}{tag}{_ANYTHING}/")
    terminal = rule.upper()
    rules.append(f"{rule}: {terminal} {literal(control)}\n{terminal}: {' & '.join(patterns)}")
    return rule


def _escaped(text: str) -> str:
    return re.escape(text).replace("\\\n", "\\n").replace("/", "\\/")


def _constraints(schema: Mapping[str, Any], tool: str, name: str) -> list[str]:
    """Regular expressions that a text must all meet, slashes escaped."""
    least, most = schema.get("minLength"), schema.get("maxLength")
    found = []
    if isinstance(least, int) or isinstance(most, int):
        found.append(f"(.|\\n){{{least if isinstance(least, int) else 0},{most if isinstance(most, int) else ''}}}")
    pattern, form = schema.get("pattern"), schema.get("format")
    if isinstance(pattern, str):
        found.append(_inside_slashes(_anchored(pattern)))
    if isinstance(form, str) and form in FORMATS:
        found.append(_inside_slashes(f"({FORMATS[form]})"))
    return found or [_ANYTHING]


def _anchored(pattern: str) -> str:
    """A pattern that is searched for, as one for the whole text: an anchor at either end, or anything."""
    before = "" if pattern.startswith("^") else _ANYTHING
    anchored = re.search(r"(?<!\\)(?:\\\\)*\$\Z", pattern) is not None
    body = pattern.removeprefix("^")
    return f"{before}({body[:-1] if anchored else body}){'' if anchored else _ANYTHING}"


def _inside_slashes(pattern: str) -> str:
    return regex(pattern)[1:-1]
