"""Conversations with tools as prompts: by the model's own template where it knows tools, and in words where not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from ref_engine.text.chat.capabilities import Capabilities
from ref_engine.text.chat.tools.parts import Call, Tool
from ref_engine.text.chat.tools.session import Syntax, compact

Message = Mapping[str, Any]

_INSTRUCTIONS = """# Tools

You may call functions to help with the request. Here they are, one JSON object a line:
<tools>
{tools}
</tools>

To call one, write a JSON object with its name and its arguments between these tags:
{example}
What a function returns comes back between <tool_response> and </tool_response>."""


@dataclass(frozen=True)
class Prepared:
    """What to render: `template.render(messages, tools=tools, **extra)`."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    extra: Mapping[str, object]


def prepare(
    messages: Iterable[Message],
    tools: Sequence[Tool],
    syntax: Syntax,
    can: Capabilities,
    *,
    name: str,
    source: str = "",
) -> Prepared:
    """Messages as the OpenAI API has them, `arguments` of calls as mappings, in the form that a template can write.

    Calls and results of earlier turns are written also where the template has no place for them, and tools that it
    does not know, or whose calls would not be understood here, are described in the system prompt.
    name, source: of the format, and of the template.
    """
    alone = name == "firefunction"  # fails without the variables that it has for tools, so it could not be asked
    if alone:
        can = replace(can, tools=True, call_mapping=True, tool_results=True)
    native = name != "generic" and can.tools
    known = [dict(message) for message in messages]
    if "length != 9" in source:
        known = [_with_short_ids(message) for message in known]
    if tools and not native:
        known = with_instructions(known, tools, syntax, system=can.system)
    known = _with_calls(known, syntax, can, native)
    described = [function(tool) for tool in tools]
    extra: dict[str, object] = {}
    if alone:  # wants them as text, and the day
        extra = {"functions": json.dumps(described, indent=4), "datetime": date.today().isoformat()}
    return Prepared(known, described if tools and native else None, extra)


def in_words(
    messages: Iterable[Message], tools: Sequence[Tool], syntax: Syntax, *, system: bool
) -> list[dict[str, Any]]:
    """Messages for a template that knows no tools at all. system: it knows system messages."""
    told = (
        with_instructions([dict(message) for message in messages], tools, syntax, system=system) if tools else messages
    )
    return _with_calls([dict(message) for message in told], syntax, None, native=False)


def with_instructions(
    messages: list[dict[str, Any]], tools: Sequence[Tool], syntax: Syntax, *, system: bool
) -> list[dict[str, Any]]:
    """The tools in words, at the end of the system prompt, or before the first user message."""
    described = "\n".join(compact(function(tool)) for tool in tools)
    example = syntax.write([Call("NAME", {"ARGUMENT": "VALUE"})])
    text = _INSTRUCTIONS.format(tools=described, example=example)
    if system:
        if messages and messages[0].get("role") == "system":
            return [{**messages[0], "content": f"{text_of(messages[0])}\n\n{text}".lstrip()}, *messages[1:]]
        return [{"role": "system", "content": text}, *messages]
    place = next((i for i, message in enumerate(messages) if message.get("role") == "user"), None)
    if place is None:
        return [{"role": "user", "content": text}, *messages]
    told = {**messages[place], "content": f"{text}\n\n{text_of(messages[place])}"}
    return [*messages[:place], told, *messages[place + 1 :]]


def _with_calls(
    messages: list[dict[str, Any]], syntax: Syntax, can: Capabilities | None, native: bool
) -> list[dict[str, Any]]:
    """Calls and results in a form that the template can write; in words where it has none."""
    found: list[dict[str, Any]] = []
    results = False  # whether the last message is a user's that holds results
    for message in messages:
        role = message.get("role")
        if role == "assistant" and message.get("tool_calls"):
            writes = can is not None and native and can.tool_calls
            found.append(_called(message, can) if can is not None and writes else _told(message, syntax))
        elif role == "tool" and not (can is not None and native and can.tool_results):
            text = f"<tool_response>\n{text_of(message)}\n</tool_response>"
            if results:
                found[-1]["content"] += f"\n{text}"
            else:
                found.append({"role": "user", "content": text})
            results = True
            continue
        elif role == "user" and results:  # many templates want users and assistants to take turns
            found[-1] = {**found[-1], "content": f"{found[-1]['content']}\n\n{text_of(message)}"}
        else:
            found.append(dict(message))
        results = False
    return found


def _called(message: dict[str, Any], can: Capabilities) -> dict[str, Any]:
    """Arguments as the template takes them: a mapping, or JSON text where it can only print that."""
    calls = []
    for call in message["tool_calls"]:
        function = dict(call.get("function", {}))
        arguments = function.get("arguments", {})
        if not can.call_mapping and not isinstance(arguments, str):
            function["arguments"] = compact(arguments)
        calls.append({"type": "function", **call, "function": function})
    return {**message, "content": message.get("content") or "", "tool_calls": calls}


def _told(message: dict[str, Any], syntax: Syntax) -> dict[str, Any]:
    calls = [
        Call(str(call["function"]["name"]), _mapping(call["function"].get("arguments")))
        for call in message["tool_calls"]
    ]
    content = "\n".join(filter(None, (text_of(message), syntax.write(calls))))
    return {**{key: value for key, value in message.items() if key != "tool_calls"}, "content": content}


def function(tool: Tool) -> dict[str, Any]:
    """A tool as the OpenAI API and chat templates have it."""
    described = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": described}


def text_of(message: Message) -> str:
    """The text of a message whose content is a text, a list of typed parts, or nothing."""
    content = message.get("content")
    if isinstance(content, list | tuple):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return "" if content is None else str(content)


def _mapping(arguments: object) -> dict[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return {"input": arguments}  # what an earlier turn wrote, if it was no JSON
    return dict(arguments) if isinstance(arguments, Mapping) else {}


def _with_short_ids(message: dict[str, Any]) -> dict[str, Any]:
    """Mistral's templates refuse ids of calls that are not nine letters and digits: others become nine of a hash."""
    if "tool_call_id" in message:
        message = {**message, "tool_call_id": _short(message["tool_call_id"])}
    if message.get("tool_calls"):
        message = {**message, "tool_calls": [{**call, "id": _short(call.get("id"))} for call in message["tool_calls"]]}
    return message


def _short(id: object) -> str:
    text = str(id)
    return text if len(text) == 9 and text.isalnum() else hashlib.sha256(text.encode()).hexdigest()[:9]
