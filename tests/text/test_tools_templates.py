"""Real chat templates: a call that a template writes into the history is read back as the same call.

The templates are those that llama.cpp tests with, in the cache. What they write is what their models were trained to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tool_answers import PING, WEATHER, read_every_way

from ref_engine.errors import TemplateError
from ref_engine.text.chat import ChatTemplate
from ref_engine.text.chat.tools import choose_format
from ref_engine.text.chat.tools.render import function

FOLDER = Path(os.environ.get("REF_ENGINE_CACHE", Path.home() / ".cache" / "ref-engine")) / "templates"
ARGUMENTS = {"city": 'Köln "x" {y}', "days": 3, "tags": ["a", "b"]}
TOOLS = (WEATHER, PING)

# What each model's documentation says of its calls, by the name that format has here.
FORMATS = {
    "Apertus-8B-Instruct": "apertus",
    "Apriel-1.6-15b-Thinker-fixed": "apriel",
    "Bielik-11B-v3.0-Instruct": "hermes",
    "ByteDance-Seed-OSS": "seed-oss",
    "Cohere2MoE": "command-r7b",
    "CohereForAI-c4ai-command-r-plus-tool_use": "command-r-json",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "command-r7b",
    "GLM-4.6": "glm",
    "GLM-4.7-Flash": "glm-dense",
    "GigaChat3-10B-A1.8B": "gigachat",
    "GigaChat3.1-10B-A1.8B": "gigachat",
    "HuggingFaceTB-SmolLM3-3B": "generic",
    "Kimi-K2-Instruct": "kimi-k2",
    "Kimi-K2-Thinking": "kimi-k2",
    "LFM2-8B-A1B": "lfm2-python",
    "LFM2.5-8B-A1B": "lfm2-python",
    "MiMo-VL": "hermes",
    "MiniMax-M1": "minimax-m1",
    "MiniMax-M2": "minimax-xml",
    "MiniMax-M3": "generic",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistral-ids",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "qwen3-coder",
    "NVIDIA-Nemotron-Nano-v2": "nemotron-json",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "hermes",
    "Qwen-QwQ-32B": "hermes",
    "Qwen-Qwen2.5-7B-Instruct": "hermes",
    "Qwen-Qwen3-0.6B": "hermes",
    "Qwen3-Coder": "qwen3-coder",
    "Qwen3.5-4B": "qwen3-coder",
    "Reka-Edge": "hermes",
    "Spark2.5": "glm-dense",
    "StepFun3.5-Flash": "qwen3-coder",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "deepseek-r1",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "deepseek-r1",
    "deepseek-ai-DeepSeek-V3.1": "deepseek-v3",
    "deepseek-ai-DeepSeek-V3.2": "deepseek-dsml",
    "deepseek-ai-DeepSeek-V4": "deepseek-dsml-4",
    "deepseek-ai-DeepSeek-V4-Flash-0731": "deepseek-dsml-4",
    "fireworks-ai-llama-3-firefunction-v2": "firefunction",
    "google-gemma-2-2b-it": "generic",
    "ibm-granite-granite-3.3-2B-Instruct": "granite-3",
    "ibm-granite-granite-4.0": "hermes",
    "ibm-granite-granite-4.1": "hermes",
    "inclusionai-ling-3.0-flash": "glm",
    "llama-cpp-deepseek-r1": "deepseek-r1",
    "llama-cpp-rwkv-world": "generic",
    "meetkai-functionary-medium-v3.1": "functionary-3.1",
    "meetkai-functionary-medium-v3.2": "functionary-3.2",
    "meta-llama-Llama-3.1-8B-Instruct": "llama-3",
    "meta-llama-Llama-3.2-3B-Instruct": "llama-3",
    "meta-llama-Llama-3.3-70B-Instruct": "llama-3",
    "microsoft-Phi-3.5-mini-instruct": "generic",
    "mistralai-Ministral-3-14B-Reasoning-2512": "mistral",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral-nemo",
    "moonshotai-Kimi-K2": "kimi-k2",
    "openai-gpt-oss-120b": "harmony",
    "openbmb-MiniCPM5-1B": "minicpm-xml",
    "poolside-Laguna-S-2.1": "glm-dense",
    "poolside-Laguna-XS-2.1": "glm",
    "poolside-Laguna-XS.2": "glm",
    "tencent-Hy3": "hunyuan",
    "unsloth-Apriel-1.5": "apriel",
    "unsloth-mistral-Devstral-Small-2507": "mistral",
    "upstage-Solar-Open-100B": "solar",
}
# Templates that write no calls, or that transformers refuses with calls in the history (`.append` on a list).
SILENT = {
    "CohereForAI-c4ai-command-r-plus-tool_use",
    "HuggingFaceTB-SmolLM3-3B",
    "Kimi-K2-Instruct",
    "Kimi-K2-Thinking",
    "LFM2-8B-A1B",
    "MiniMax-M3",
    "fireworks-ai-llama-3-firefunction-v2",
    "google-gemma-2-2b-it",
    "ibm-granite-granite-3.3-2B-Instruct",
    "llama-cpp-deepseek-r1",
    "llama-cpp-rwkv-world",
    "microsoft-Phi-3.5-mini-instruct",
}
ENDS = (  # of turns: tokens that end generation, which no parser sees
    *("<|end|>\n<eos>", "<eos>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"),
    *("<|call|>", "[e~[", "<seed:eos>", "<|END_OF_TURN_TOKEN|>", "<end_of_sentence>", "<SPECIAL_12>", "<sep>"),
    *("<|role_end|>", "</assistant>", "<｜hy_eos:opensource｜>", "<|calls|>"),
)


def template(name: str) -> ChatTemplate:
    path = FOLDER / f"{name}.jinja"
    if not path.exists():
        pytest.skip(f"{path} is not there: python -m ref_engine.library.assets fetches it")
    return ChatTemplate(path.read_text(), "<bos>", "<eos>")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_format_is_known_from_the_template(name: str) -> None:
    assert choose_format(template(name).source).name == FORMATS[name]


Calls = list[tuple[str, Mapping[str, Any]]]


def turn(calls: Calls, content: str | None, as_text: bool) -> dict[str, Any]:
    def written(arguments: Mapping[str, Any]) -> object:
        return json.dumps(arguments, ensure_ascii=False) if as_text else dict(arguments)

    made = [
        {"type": "function", "id": f"call0000{i}", "function": {"name": name, "arguments": written(arguments)}}
        for i, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": content, "tool_calls": made}


def answers(chat: ChatTemplate) -> Iterator[tuple[str, str, Calls]]:
    """Prompt, answer and the calls in it: two calls with a word before, else one, else without a word."""
    tools = [function(tool) for tool in TOOLS]
    user = {"role": "user", "content": "hi"}
    prompt = chat.render([user], tools=tools)
    both: Calls = [("get_weather", ARGUMENTS), ("ping", {})]
    for content, as_text in (("Let me see.", False), ("Let me see.", True), (None, False), (None, True), ("", False)):
        for calls in (both, both[:1]):
            try:
                turns = [user, turn(calls, content, as_text)]
                rendered = chat.render(turns, tools=tools, add_generation_prompt=False)
            except TemplateError:
                continue
            same = next((i for i, (a, b) in enumerate(zip(prompt, rendered, strict=False)) if a != b), len(prompt))
            while same and same < len(prompt) and prompt[same - 1] not in ">\n]":
                same -= 1  # the template may think otherwise in the past: go back to the end of a tag
            answer = rendered[same:]
            for end in ENDS:
                answer = answer.partition(end)[0]
            answer = answer.removesuffix("<|message_sep|>\n\n")  # ends a turn, and stands inside one, too
            if all(name in answer for name, _ in calls):
                yield rendered[:same], answer, calls


@pytest.mark.parametrize("name", sorted(set(FORMATS) - SILENT))
def test_what_a_template_writes_is_read_back(name: str) -> None:
    chat = template(name)
    prompt, answer, calls = next(answers(chat))
    found = read_every_way(choose_format(chat.source), answer, TOOLS, prompt, step=7)
    assert found.calls == tuple((name, dict(arguments)) for name, arguments in calls)
    assert found.errors == ()
    said = found.text + found.thinking
    assert said.strip() in ("Let me see.", "") or said.endswith("Let me see.")
