"""Which template a model file gives, and what a template can do."""

from __future__ import annotations

from typing import Any

import pytest

from ref_engine.errors import TemplateError
from ref_engine.text.chat import CHATML, ChatTemplate, probe, template_for, template_names, template_source

HELLO = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
# As ChatML is defined: https://github.com/openai/openai-python/blob/v0.27.6/chatml.md
CHATML_HELLO = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"

FILE: dict[str, Any] = {
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.chat_template": "{{ bos_token }}default{{ eos_token }}",
    "tokenizer.chat_templates": ["tool_use", "gone"],
    "tokenizer.chat_template.tool_use": "{{ bos_token }}tools",
}


def test_the_files_own_templates() -> None:
    assert template_for(FILE).render(HELLO) == "<s>default</s>"
    assert template_for(FILE, name="tool_use").render(HELLO) == "<s>tools"
    assert template_names(FILE) == ["tool_use"]
    assert template_for(FILE, ["", "[B]", "[E]"]).render(HELLO) == "[B]default[E]"


def test_a_file_without_a_template_speaks_chatml() -> None:
    for metadata in ({}, {"tokenizer.chat_template": ""}, {"tokenizer.chat_template": "chatml"}):
        assert template_source(metadata) == CHATML
        assert template_for(metadata).render(HELLO) == CHATML_HELLO


def test_chatml_writes_the_text_of_parts_and_of_none() -> None:
    parts = [{"type": "text", "text": "He"}, {"type": "image"}, {"type": "text", "text": "llo"}]
    messages = [HELLO[0], {"role": "user", "content": parts}]
    assert template_for({}).render(messages) == CHATML_HELLO
    nothing = template_for({}).render([{"role": "user", "content": None}], add_generation_prompt=False)
    assert nothing == "<|im_start|>user\n<|im_end|>\n"


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({}, "gone", "no chat template 'gone'; it names: tool_use"),
        ({"tokenizer.chat_template": 3}, None, "tokenizer.chat_template is not a text"),
        ({"tokenizer.chat_template": "{{"}, None, "chat template: line 1"),
        ({"tokenizer.ggml.bos_token_id": 3}, None, "bos_token_id is 3, the vocabulary has 3 tokens"),
        ({"tokenizer.ggml.eos_token_id": -1}, None, "eos_token_id is -1"),
        ({"tokenizer.ggml.tokens": "abc"}, None, "not a list of texts"),
        ({"tokenizer.chat_templates": 7}, "x", "not a list of names"),
    ],
)
def test_damaged_files(change: dict[str, Any], name: str | None, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        template_for({**FILE, **change}, name=name)


def test_no_token_ids_means_empty_texts() -> None:
    assert template_for({"tokenizer.chat_template": "[{{ bos_token }}{{ eos_token }}]"}).render(HELLO) == "[]"


SAYS_ALL = """
{%- for tool in tools or [] %}{{ tool.function.name }}{% endfor -%}
{%- for document in documents or [] %}{{ document.text }}{% endfor -%}
{%- for m in messages -%}
    {%- if m.content is string %}{{ m.content }}{% else %}{{ m.content | map(attribute='text') | join }}{% endif -%}
    {{- m.reasoning_content -}}
    {%- for call in m.tool_calls or [] %}{{ call.function.arguments.items() | list }}{% endfor -%}
{%- endfor -%}
"""
USERS_ONLY = """
{%- for m in messages -%}
    {%- if m.role == 'system' %}{{ raise_exception('no system') }}{% endif -%}
    {%- if m.role == 'user' %}{{ m.content }}{% endif -%}
{%- endfor -%}
"""


def test_capabilities_of_templates_known_by_reading() -> None:
    every = probe(ChatTemplate(SAYS_ALL))
    assert vars(every) == {
        "system": True,
        "parts": True,
        "tools": True,
        "call_mapping": True,
        "call_text": False,
        "tool_results": True,
        "documents": True,
        "thinking": True,
    }
    assert every.tool_calls
    none = probe(ChatTemplate(USERS_ONLY))
    assert not any(vars(none).values()) and not none.tool_calls


def test_a_switch_is_thinking_and_text_arguments_are_seen() -> None:
    calls = "{% for m in messages if m.tool_calls %}{{ m.tool_calls[0].function.arguments + '' }}{% endfor %}"
    found = probe(ChatTemplate("{% if thinking %}<think>{% endif %}" + calls))
    assert (found.thinking, found.call_text, found.call_mapping) == (True, True, False)
