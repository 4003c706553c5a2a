"""docs/api.md, the tables it is made of, the official SDKs' fields, and what the code does with each: all in step."""

from __future__ import annotations

import importlib.util
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anthropic.types as claude
import ollama._types as llama
import openai.types as gpt
import openai.types.chat as gpt_chat
import openai.types.responses as gpt_responses
import pytest
from anthropic.types import message_create_params
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params, response_input_item_param

from ref_engine_app import ollama_models
from ref_engine_app.anthropic import blocks, incoming, turns
from ref_engine_app.errors import ApiError
from ref_engine_app.fields import Field
from ref_engine_app.ollama import embed, options
from ref_engine_app.ollama import incoming as ollama_incoming
from ref_engine_app.openai import chat_request, common, completions, embeddings, responses_items, responses_request

DOCS = Path(__file__).parents[2] / "docs"
Fields = tuple[Field, ...]


def test_the_committed_text_is_in_step() -> None:
    spec = importlib.util.spec_from_file_location("make_api", DOCS / "make_api.py")
    assert spec is not None and spec.loader is not None
    make_api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_api)
    assert (DOCS / "api.md").read_text(encoding="utf-8") == make_api.render(), "make docs"


def keys(typed: Any) -> set[str]:
    """The keys of a TypedDict or the fields of a pydantic model, as they are on the wire."""
    if hasattr(typed, "model_fields"):
        return {(field.alias or name).removesuffix("_") for name, field in typed.model_fields.items()}  # from_
    return set(typing.get_type_hints(typed))


SDK_TYPES: list[tuple[Any, Fields]] = [
    (message_create_params.MessageCreateParamsStreaming, incoming.FIELDS),
    (claude.MessageCountTokensParams, incoming.COUNT_FIELDS),
    (claude.MessageParam.__args__[0], turns.MESSAGE),
    (claude.MessageParam.__args__[1], turns.MESSAGE),
    (claude.TextBlockParam, blocks.TEXT),
    (claude.ImageBlockParam, blocks.IMAGE),
    (claude.DocumentBlockParam, blocks.DOCUMENT),
    (claude.SearchResultBlockParam, blocks.SEARCH_RESULT),
    (claude.ThinkingBlockParam, blocks.THINKING),
    (claude.RedactedThinkingBlockParam, blocks.REDACTED),
    (claude.ToolUseBlockParam, blocks.TOOL_USE),
    (claude.ToolResultBlockParam, blocks.TOOL_RESULT),
    (claude.PlainTextSourceParam, blocks.PLAIN_SOURCE),
    (claude.ContentBlockSourceParam, blocks.CONTENT_SOURCE),
    (claude.ToolParam, incoming.TOOL),
    (claude.ToolChoiceAnyParam, incoming.CHOICE),
    (claude.ToolChoiceToolParam, incoming.NAMED_CHOICE),
    (claude.ThinkingConfigEnabledParam, incoming.THINKING_ENABLED),
    (claude.ThinkingConfigAdaptiveParam, incoming.THINKING_ADAPTIVE),
    (claude.OutputConfigParam, incoming.OUTPUT_CONFIG),
    (claude.JSONOutputFormatParam, incoming.FORMAT),
    (chat_create_params.CompletionCreateParamsStreaming, chat_request.FIELDS),
    (gpt_chat.ChatCompletionStreamOptionsParam, common.STREAM_OPTIONS),
    (gpt_chat.ChatCompletionSystemMessageParam, chat_request.MESSAGES["system"]),
    (gpt_chat.ChatCompletionDeveloperMessageParam, chat_request.MESSAGES["developer"]),
    (gpt_chat.ChatCompletionUserMessageParam, chat_request.MESSAGES["user"]),
    (gpt_chat.ChatCompletionAssistantMessageParam, chat_request.MESSAGES["assistant"]),
    (gpt_chat.ChatCompletionToolMessageParam, chat_request.MESSAGES["tool"]),
    (gpt_chat.ChatCompletionFunctionMessageParam, chat_request.MESSAGES["function"]),
    (gpt_chat.ChatCompletionContentPartTextParam, chat_request.PARTS["text"]),
    (gpt_chat.ChatCompletionContentPartImageParam, chat_request.PARTS["image_url"]),
    (gpt_chat.ChatCompletionContentPartInputAudioParam, chat_request.PARTS["input_audio"]),
    (gpt_chat.ChatCompletionContentPartRefusalParam, chat_request.PARTS["refusal"]),
    (gpt_chat.ChatCompletionMessageFunctionToolCallParam, chat_request.CALL),
    (gpt_chat.ChatCompletionFunctionToolParam, chat_request.TOOL),
    (gpt.shared_params.FunctionDefinition, common.FUNCTION),
    (gpt.shared_params.response_format_json_schema.JSONSchema, common.JSON_SCHEMA),
    (completion_create_params.CompletionCreateParamsStreaming, completions.FIELDS),
    (embedding_create_params.EmbeddingCreateParams, embeddings.FIELDS),
    (response_create_params.ResponseCreateParamsStreaming, responses_request.FIELDS),
    (gpt_responses.EasyInputMessageParam, responses_items.ITEMS["message"]),
    (gpt_responses.ResponseOutputMessageParam, responses_items.ITEMS["message"]),
    (gpt_responses.ResponseFunctionToolCallParam, responses_items.ITEMS["function_call"]),
    (response_input_item_param.FunctionCallOutput, responses_items.ITEMS["function_call_output"]),
    (gpt_responses.ResponseReasoningItemParam, responses_items.ITEMS["reasoning"]),
    (gpt_responses.ResponseInputTextParam, responses_items.PARTS["input_text"]),
    (gpt_responses.ResponseInputImageParam, responses_items.PARTS["input_image"]),
    (gpt_responses.ResponseOutputTextParam, responses_items.PARTS["output_text"]),
    (gpt_responses.ResponseOutputRefusalParam, responses_items.PARTS["refusal"]),
    (gpt_responses.FunctionToolParam, responses_request.TOOL),
    (gpt_responses.ResponseTextConfigParam, responses_request.TEXT),
    (gpt.shared_params.Reasoning, responses_request.REASONING),
    (llama.GenerateRequest, ollama_incoming.GENERATE_FIELDS),
    (llama.ChatRequest, ollama_incoming.CHAT_FIELDS),
    (llama.Message, ollama_incoming.MESSAGE),
    (llama.Tool, ollama_incoming.TOOL),
    (llama.Options, options.OPTIONS),
    (llama.EmbedRequest, embed.EMBED_FIELDS),
    (llama.EmbeddingsRequest, embed.EMBEDDINGS_FIELDS),
    (llama.CreateRequest, ollama_models.CREATE_FIELDS),
    (llama.PullRequest, ollama_models.PULL_FIELDS),
    (llama.CopyRequest, ollama_models.COPY_FIELDS),
    (llama.DeleteRequest, ollama_models.NAMED_FIELDS),
    (llama.ShowRequest, ollama_models.SHOW_FIELDS),
]


@pytest.mark.parametrize(("typed", "table"), SDK_TYPES, ids=lambda value: getattr(value, "__name__", ""))
def test_every_field_of_the_sdk_is_in_the_table(typed: Any, table: Fields) -> None:
    found = keys(typed)
    assert found
    assert found - {field.name for field in table} == set()


def names_of(union: Any) -> set[str]:
    """The values of `type` of all members of a union of TypedDicts."""
    found = set()
    for member in typing.get_args(union):
        for hint in typing.get_args(typing.get_type_hints(member).get("type")):
            found |= set(typing.get_args(hint)) or {hint}  # of a Literal, or of a Literal that may be absent
    return found - {type(None)}


def test_every_block_and_item_is_read_or_refused_by_name() -> None:
    known = set(blocks.BLOCKS) | set(blocks.ELSEWHERE)
    assert names_of(claude.ContentBlockParam) - known == set()
    assert names_of(claude.tool_result_block_param.Content) - known == set()
    parts = names_of(gpt_chat.ChatCompletionContentPartParam)
    assert len(parts) == 4 and parts - set(chat_request.PARTS) == set()
    items = names_of(gpt_responses.ResponseInputItemParam)
    assert len(items) > 20
    assert items - set(responses_items.ITEMS) - set(responses_items.ELSEWHERE) == set()


# -- what the code does with each field ---------------------------------------------------------------------

USER = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
CLAUDE_TOOL = {"name": "f", "input_schema": SCHEMA}
GPT_TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
Parse = Callable[[Any], Any]


def count(body: object) -> object:
    return incoming.parse(body, counting=True)


def older_embed(body: object) -> object:
    return embed.parse(body, older=True)


ENDPOINTS: dict[str, tuple[Parse, Fields, dict[str, Any]]] = {
    "messages": (incoming.parse, incoming.FIELDS, {"model": "m", "max_tokens": 9, "messages": USER}),
    "count": (count, incoming.COUNT_FIELDS, {"model": "m", "messages": USER}),
    "chat": (chat_request.parse, chat_request.FIELDS, {"model": "m", "messages": USER}),
    "completions": (completions.parse, completions.FIELDS, {"model": "m", "prompt": "hi"}),
    "embeddings": (embeddings.parse, embeddings.FIELDS, {"model": "m", "input": "hi"}),
    "responses": (responses_request.parse, responses_request.FIELDS, {"model": "m", "input": "hi"}),
    "generate": (ollama_incoming.parse_generate, ollama_incoming.GENERATE_FIELDS, {"model": "m", "prompt": "hi"}),
    "ollama chat": (ollama_incoming.parse_chat, ollama_incoming.CHAT_FIELDS, {"model": "m", "messages": USER}),
    "embed": (embed.parse, embed.EMBED_FIELDS, {"model": "m", "input": "hi"}),
    "older embed": (older_embed, embed.EMBEDDINGS_FIELDS, {"model": "m", "prompt": "hi"}),
}
# values that differ from what a field is without them; for refused fields, values that a client may send
EXAMPLES: dict[str, Any] = {
    "model": "other",
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "max_output_tokens": 5,
    "system": "be short",
    "tools": [GPT_TOOL],
    "tool_choice": "none",
    "thinking": {"type": "adaptive"},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    "output_format": {"type": "json_schema", "schema": SCHEMA},
    "cache_control": {"type": "ephemeral"},
    "context_management": {"edits": []},
    "speed": "fast",
    "mcp_servers": [{"type": "url", "url": "https://example.org", "name": "x"}],
    "stop_sequences": ["\n"],
    "stop": ["\n", "END"],
    "stream": True,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 3,
    "min_p": 0.1,
    "repeat_penalty": 1.5,
    "frequency_penalty": 1.0,
    "presence_penalty": -1.0,
    "logit_bias": {"5": -100},
    "seed": 7,
    "n": 2,
    "best_of": 3,
    "echo": True,
    "suffix": "end",
    "metadata": {"user_id": "u"},
    "service_tier": "auto",
    "diagnostics": {"previous_message_id": "msg_1"},
    "container": "c",
    "messages": [{"role": "user", "content": "other"}],
    "prompt": "other",
    "input": "other",
    "instructions": "be short",
    "logprobs": True,
    "response_format": {"type": "json_object"},
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "reasoning": {"effort": "low"},
    "chat_template_kwargs": {"a": 1},
    "keep_alive": 5,
    "modalities": ["text", "audio"],
    "store": True,
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "verbosity": "low",
    "moderation": {"model": "x"},
    "text": {"format": {"type": "json_object"}},
    "include": ["message.output_text.logprobs"],
    "truncation": "auto",
    "background": True,
    "image": {"context_compression": "auto"},
    "access_programs": {"cyber": "standard"},
    "background_options": {"completion_window": "2h"},
    "max_tool_calls": 3,
    "encoding_format": "base64",
    "dimensions": 2,
    "format": "json",
    "options": {"temperature": 0.1},
    "think": "high",
    "truncate": False,
    "shift": True,
    "template": "{{ messages }}",
    "context": [1, 2],
    "raw": True,
    "images": ["aGk="],
    "_debug_render_only": True,
    "functions": [{"name": "f"}],
    "function_call": "auto",
}
OWN: dict[tuple[str, str], Any] = {
    ("messages", "tools"): [CLAUDE_TOOL],
    ("count", "tools"): [CLAUDE_TOOL],
    ("responses", "tools"): [{"type": "function", "name": "f", "parameters": SCHEMA}],
    ("responses", "top_logprobs"): 3,
    ("responses", "context_management"): [{"type": "compaction"}],
    ("responses", "metadata"): {"k": "v"},
    ("completions", "logprobs"): 2,
    ("generate", "stream"): False,
    ("ollama chat", "stream"): False,
}
# fields that need another beside them: the pair is compared with that other one alone
BESIDE: dict[tuple[str, str], tuple[dict[str, Any], Any]] = {
    ("messages", "tool_choice"): ({"tools": [CLAUDE_TOOL]}, {"type": "tool", "name": "f"}),
    ("count", "tool_choice"): ({"tools": [CLAUDE_TOOL]}, {"type": "any"}),
    ("chat", "tool_choice"): ({"tools": [GPT_TOOL]}, "required"),
    ("chat", "stream_options"): ({"stream": True}, {"include_usage": True}),
    ("completions", "stream_options"): ({"stream": True}, {"include_usage": True}),
    ("responses", "stream_options"): ({"stream": True}, {"include_obfuscation": True}),
    ("chat", "top_logprobs"): ({"logprobs": True}, 3),
    ("generate", "top_logprobs"): ({"logprobs": True}, 3),
    ("ollama chat", "top_logprobs"): ({"logprobs": True}, 3),
}
ROWS = [(endpoint, field) for endpoint, (_, fields, _) in ENDPOINTS.items() for field in fields]


@pytest.mark.parametrize(("endpoint", "field"), ROWS, ids=[f"{e}-{f.name}" for e, f in ROWS])
def test_a_field_does_what_the_table_says(endpoint: str, field: Field) -> None:
    parse, _, base = ENDPOINTS[endpoint]
    beside, value = BESIDE.get((endpoint, field.name), ({}, None))
    if value is None:
        value = OWN.get((endpoint, field.name), EXAMPLES.get(field.name, "x"))
    if field.use == "refused":
        with pytest.raises(ApiError) as caught:
            parse({**base, **beside, field.name: value})
        assert caught.value.kind == "unsupported"
        assert (caught.value.param or "").split(".")[0] == field.name
        return
    without, with_it = parse({**base, **beside}), parse({**base, **beside, field.name: value})
    assert (with_it == without) == (field.use == "ignored")
    if field.required:
        with pytest.raises(ApiError, match=f"{field.name}: is required"):
            parse({name: base[name] for name in base if name != field.name})
        with pytest.raises(ApiError, match=f"{field.name}: is required"):
            parse({**base, field.name: None})
    else:
        bare = {**base, **beside}
        bare.pop(field.name, None)
        assert parse({**bare, field.name: None}) == parse(bare)  # null is as good as absent


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_field_of_no_table_is_refused_by_name(endpoint: str) -> None:
    parse, _, base = ENDPOINTS[endpoint]
    with pytest.raises(ApiError, match="no_such_field: no such field") as caught:
        parse({**base, "no_such_field": 1})
    assert caught.value.param == "no_such_field"


def test_every_option_does_what_the_table_says() -> None:
    numbers: Mapping[str, Any] = {"mirostat": 1, "num_predict": 3, "num_ctx": 100, "stop": "x"}
    for field in options.OPTIONS:
        value = numbers.get(field.name, True if field.check.says == "boolean" else 1)
        changed = options.options({field.name: value}, "options") != options.Options({})
        assert changed == (field.use == "honoured"), field.name
