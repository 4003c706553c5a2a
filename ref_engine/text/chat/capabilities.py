"""What a chat template does with a conversation, found by rendering marked messages and looking for the
marks.

Nothing in a model file says whether its template knows a system role or tools, so the template is asked. The
idea is that of minja, the template engine that llama.cpp had first (`chat_template_caps`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ref_engine.errors import TemplateError
from ref_engine.text.chat.template import ChatTemplate

_MARK = "zq{}qz"  # not in any template, and no filter changes it but upper
_SYSTEM, _USER, _REPLY, _TOOL, _VALUE, _RESULT, _THOUGHT, _DOCUMENT = map(_MARK.format, "abcdefgh")


@dataclass(frozen=True)
class Capabilities:
    """True for what reaches the prompt.

    `system`: a system message. `parts`: content as a list of typed parts. `tools`: the list of tools.
    `tool_calls`: a call in the history, with its arguments as a mapping (`call_mapping`) or as JSON text
    (`call_text`). `tool_results`: a message of role "tool". `documents`: retrieved texts. `thinking`:
    reasoning of the last turn, or a switch `enable_thinking` or `thinking` that changes the prompt.
    """

    system: bool
    parts: bool
    tools: bool
    call_mapping: bool
    call_text: bool
    tool_results: bool
    documents: bool
    thinking: bool

    @property
    def tool_calls(self) -> bool:
        return self.call_mapping or self.call_text


def probe(template: ChatTemplate) -> Capabilities:
    """Ask a template what it can do, in about a dozen small renderings. A rendering that fails says no."""
    user = {"role": "user", "content": _USER}
    again = {"role": "user", "content": "more"}
    tool = _tool()

    def shows(mark: str, messages: list[dict[str, Any]], **more: Any) -> bool:
        prompt = _render(template, messages, **more)
        return prompt is not None and mark in prompt

    def call(arguments: object) -> list[dict[str, Any]]:
        function = {"name": _TOOL, "arguments": arguments}
        made = {"type": "function", "id": "call00001", "function": function}
        turn = {"role": "assistant", "content": "", "tool_calls": [made]}
        return [user, turn, {"role": "tool", "name": _TOOL, "tool_call_id": "call00001", "content": _RESULT}]

    mapping, text = call({"x": _VALUE}), call(f'{{"x": "{_VALUE}"}}')
    thought = {"role": "assistant", "content": _REPLY, "reasoning_content": _THOUGHT}
    return Capabilities(
        # Templates for tool use only fail without tools.
        system=shows(_SYSTEM, [{"role": "system", "content": _SYSTEM}, user])
        or shows(_SYSTEM, [{"role": "system", "content": _SYSTEM}, user], tools=[tool]),
        parts=_shows_parts(_render(template, [{"role": "user", "content": [{"type": "text", "text": _USER}]}])),
        tools=shows(_TOOL, [user], tools=[tool]),
        call_mapping=shows(_VALUE, mapping, tools=[tool]),
        call_text=shows(_VALUE, text, tools=[tool]),
        tool_results=shows(_RESULT, mapping, tools=[tool]) or shows(_RESULT, text, tools=[tool]),
        documents=shows(_DOCUMENT, [user], documents=[{"title": "t", "text": _DOCUMENT, "content": _DOCUMENT}]),
        thinking=shows(_THOUGHT, [user, thought], add_generation_prompt=False)
        or shows(_THOUGHT, [user, thought, again])
        or _switches(template, [user]),
    )


def _tool() -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "string", "description": "x"}},
        "required": ["x"],
    }
    return {"type": "function", "function": {"name": _TOOL, "description": "a tool", "parameters": schema}}


def _render(template: ChatTemplate, messages: list[dict[str, Any]], **more: Any) -> str | None:
    try:
        return template.render(messages, **more)
    except TemplateError:
        return None


def _shows_parts(prompt: str | None) -> bool:
    """The text of the part, and not the part itself written out as Python or JSON."""
    return prompt is not None and _USER in prompt and "'type'" not in prompt and '"type"' not in prompt


def _switches(template: ChatTemplate, messages: list[dict[str, Any]]) -> bool:
    """Whether `enable_thinking` or `thinking` (DeepSeek, Granite) changes the prompt."""
    settings: list[Mapping[str, bool]] = [
        {name: value} for name in ("enable_thinking", "thinking") for value in (True, False)
    ]
    prompts = [_render(template, messages, **setting) for setting in settings]
    return prompts[0] != prompts[1] or prompts[2] != prompts[3]
