"""Conversations with tools as prompts: templates that know tools, that know half of it, and that know nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tool_answers import PING, WEATHER, read

from ref_engine.text.chat import ChatTemplate
from ref_engine.text.chat.capabilities import probe
from ref_engine.text.chat.default import CHATML
from ref_engine.text.chat.tools import choose_format

FOLDER = Path(os.environ.get("REF_ENGINE_CACHE", Path.home() / ".cache" / "ref-engine")) / "templates"
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather in Paris?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "toolu_01A09q90qw90lq917835lq9",
                "type": "function",
                "function": {"name": "get_weather", "arguments": {"city": "Paris"}},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "toolu_01A09q90qw90lq917835lq9", "name": "get_weather", "content": "15 degrees"},
    {"role": "assistant", "content": "It is mild."},
    {"role": "user", "content": "Thanks."},
]


def rendered(source: str, turns: list[dict[str, Any]] = TURNS, tools: tuple[Any, ...] = (WEATHER, PING)) -> str:
    template = ChatTemplate(source, "<bos>", "<eos>")
    prepared = choose_format(source).prepare(turns, tools, probe(template), source)
    return template.render(prepared.messages, tools=prepared.tools, **prepared.extra)


def source_of(name: str) -> str:
    path = FOLDER / f"{name}.jinja"
    if not path.exists():
        pytest.skip(f"{path} is not there: python -m ref_engine.library.assets fetches it")
    return path.read_text()


def test_a_template_that_knows_no_tools() -> None:
    """Tools in the system prompt, a call as the model is told to write it, its result in the user's words."""
    prompt = rendered(CHATML)
    system, user, called, answered, *_ = prompt.split("<|im_start|>")[1:]
    assert system.startswith("system\n# Tools")
    assert '"name": "get_weather"' in system and '"name": "ping"' in system and '"required": ["city"]' in system
    assert user == "user\nWeather in Paris?<|im_end|>\n"
    call = called.removeprefix("assistant\n").removesuffix("<|im_end|>\n")
    assert read(choose_format(CHATML), call, (WEATHER,)).calls == (("get_weather", {"city": "Paris"}),)
    assert answered == "user\n<tool_response>\n15 degrees\n</tool_response><|im_end|>\n"


def test_users_and_assistants_take_turns() -> None:
    """What several tools say and what the user says next is one message, as many templates insist."""
    turns = [*TURNS[:3], {"role": "tool", "name": "ping", "content": "pong"}, TURNS[4]]
    answered = rendered(CHATML, turns).split("<|im_start|>")[4]
    assert answered == (
        "user\n<tool_response>\n15 degrees\n</tool_response>\n"
        "<tool_response>\npong\n</tool_response>\n\nThanks.<|im_end|>\n"
    )


def test_the_users_own_system_prompt_stays_first() -> None:
    prompt = rendered(CHATML, [{"role": "system", "content": "Be brief."}, *TURNS])
    assert prompt.startswith("<|im_start|>system\nBe brief.\n\n# Tools")


def test_without_tools_nothing_is_added() -> None:
    turns = [{"role": "user", "content": "Hi"}]
    assert rendered(CHATML, turns, ()) == ChatTemplate(CHATML).render(turns)


def test_a_template_without_a_system_role() -> None:
    prompt = rendered(source_of("google-gemma-2-2b-it"))
    assert prompt.startswith("<bos><start_of_turn>user\n# Tools")
    assert "Weather in Paris?<end_of_turn>" in prompt and "15 degrees" in prompt


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "Qwen-Qwen2.5-7B-Instruct",
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        ),
        # its template refuses ids that are not nine letters and digits
        ("mistralai-Mistral-Nemo-Instruct-2407", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}'),
        # prints the arguments as they are, so they must be text
        ("meetkai-functionary-medium-v3.2", '>>>get_weather\n{"city": "Paris"}'),
        # lists tools and has no place for calls
        ("LFM2-8B-A1B", "<|tool_call_start|>[get_weather(city='Paris')]<|tool_call_end|>"),
        # wants tools as text in a variable of its own
        ("fireworks-ai-llama-3-firefunction-v2", ' functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]'),
        ("openai-gpt-oss-120b", "to=functions.get_weather"),
        # writes its own calls, of a kind that is not understood here: so it is told to write others
        ("MiniMax-M3", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'),
    ],
)
def test_calls_and_results_reach_the_prompt(name: str, shown: str) -> None:
    prompt = rendered(source_of(name))
    assert shown in prompt
    assert "15 degrees" in prompt and "Thanks." in prompt
    assert prompt.count("get_weather") >= 2  # described and called
