"""ChatTemplate.render: what a template sees, the errors it gives, and room enough for real conversations."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ref_engine.errors import TemplateError
from ref_engine.text.chat import ChatTemplate, Limits

TEMPLATES = Path(__file__).resolve().parents[2] / "golden" / "chat" / "templates"
USER = [{"role": "user", "content": "x"}]


class Colour(enum.StrEnum):
    RED = "red"


class Spy:
    """An object whose methods a template must not get."""

    def open(self) -> str:
        raise AssertionError("called")


def test_only_plain_data_reaches_a_template() -> None:
    """Conversions of transformers' `_plain_template_data`: subclasses to their base, the rest to a placeholder."""
    shown = ChatTemplate("{{ a }} {{ b }} {{ c }} {{ d }} {{ e | tojson }} {{ f.open is defined }}").render(
        USER, a=Colour.RED, b=np.float32(0.5), c=np.int64(3), d=Spy(), e=OrderedDict(k=(1, True)), f=Spy()
    )
    assert shown == 'red 0.5 3 <Spy> {"k": [1, true]} False'


def test_the_callers_messages_are_not_touched() -> None:
    messages = [{"role": "assistant", "reasoning": "r", "content": "c"}]
    shown = ChatTemplate("{{ messages[0].reasoning_content }}{{ messages[0].thinking }}").render(messages)
    assert (shown, messages) == ("rr", [{"role": "assistant", "reasoning": "r", "content": "c"}])


def test_variables_every_template_has() -> None:
    source = "{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}"
    template = ChatTemplate(source, "<s>", "</s>")
    assert template.render(USER) == "<s></s>TrueTrueTrue"
    assert template.render(USER, **{"self": 1, "messages": 2, "range": 3}) == "<s></s>TrueTrueTrue"
    assert template.render(USER, add_generation_prompt=False, eos_token="!") == "<s>!TrueTrueFalse"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.render("text"), "messages must be a list of mappings, not str"),
        (lambda t: t.render({"role": "user"}), "messages must be a list of mappings, not dict"),
        (lambda t: t.render([*USER, 3]), r"messages\[1\] must be a mapping, not int"),
        (lambda t: t.render(USER, tools=[print]), r"tools\[0\] must be a mapping"),
        (lambda t: t.render(USER, documents=["d"]), r"documents\[0\] must be a mapping"),
    ],
)
def test_what_the_caller_gets_wrong_is_named(call: Callable[[ChatTemplate], str], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        call(ChatTemplate("x"))


def test_data_that_nests_too_deep_or_in_itself() -> None:
    deep: Any = "x"
    for _ in range(150):
        deep = [deep]
    cycle: dict[str, Any] = {"role": "user"}
    cycle["content"] = [cycle]
    for content in (deep, cycle["content"]):
        with pytest.raises(TemplateError, match="chat data is nested deeper than 100"):
            ChatTemplate("x").render([{"role": "user", "content": content}])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n\n{{ raise_exception('No\n system!') }}", "chat template: line 3: No system!"),
        ("{% for x in messages %}\n{% if %}", "chat template: line 2: "),
        ("a\n{{ nothing.b }}", "chat template: line 2: 'nothing' is undefined"),
        ("{% macro m() %}\n{{ 1 + 'a' }}{% endmacro %}\n{{ m() }}", "chat template: line 2: TypeError: "),
        ("{{ '\\ud800' }}", "chat template: UnicodeEncodeError: "),
        ("{{ x | nofilter }}", "chat template: line 1: No filter named 'nofilter'."),
    ],
)
def test_errors_name_the_line(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(source).render(USER)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_strftime_now_reads_the_given_clock() -> None:
    template = ChatTemplate("{{ strftime_now('%Y-%m-%d %H:%M') }}", clock=lambda: datetime(2024, 2, 29, 23, 59))
    assert template.render(USER) == "2024-02-29 23:59"


def test_tojson_is_json_dumps() -> None:
    """Hugging Face's filter is json.dumps with ensure_ascii off: what Python writes is what is expected."""
    value = {"b": ["é<>&'\"", 1.5, None, True], "a": {"\n": [], "x": {}}}
    for options in ({}, {"indent": 2}, {"sort_keys": True}, {"ensure_ascii": True}, {"separators": (",", ":")}):
        written = ", ".join(f"{key}={option!r}" for key, option in options.items())
        shown = ChatTemplate("{{ value | tojson(" + written + ") }}").render(USER, value=value)
        assert shown == json.dumps(value, **{"ensure_ascii": False, **options})  # type: ignore[arg-type]


def _tools(count: int) -> list[dict[str, Any]]:
    properties = {f"p{i}": {"type": "string", "description": "what it is " * 5, "enum": ["a", "b"]} for i in range(8)}
    return [
        {
            "type": "function",
            "function": {
                "name": f"tool_{i}",
                "description": "Does a thing. " * 10,
                "parameters": {"type": "object", "properties": properties, "required": ["p1"]},
            },
        }
        for i in range(count)
    ]


def _turns(count: int) -> list[dict[str, Any]]:
    call = {"id": "c", "type": "function", "function": {"name": "tool_1", "arguments": {"p1": "ü" * 100}}}
    turns = [
        {"role": "user", "content": "héllo wörld " * 50},
        {"role": "assistant", "content": "", "reasoning": "hm " * 30, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "name": "tool_1", "content": "result " * 50},
        {"role": "assistant", "content": "answer " * 100},
    ]
    return turns * (count // 4)


@pytest.mark.parametrize("name", ["tools.jinja", "state.jinja"])
def test_room_for_a_thousand_messages_and_a_hundred_tools(name: str) -> None:
    template = ChatTemplate((TEMPLATES / name).read_text(encoding="utf-8"))
    messages = _turns(1000)
    prompt = template.render(messages, tools=_tools(100))
    assert prompt.count("answer " * 99) == 250
    assert prompt.count("héllo wörld " * 49) == 250


def test_limits_grow_with_the_callers_data() -> None:
    """A text longer than a template may make for itself passes when it is the caller's."""
    content = "a" * (Limits().text + 1)
    assert (
        len(ChatTemplate("{{ messages[0].content ~ '!' }}").render([{"role": "user", "content": content}]))
        == len(content) + 1
    )
