"""The official SDKs against the whole server with the default model: the examples of Ollama's documentation, shortened.

Left out of an example is only what a test cannot afford: hundreds of tokens. Each has `temperature` 0 besides.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
import requests
from malformed import BODIES, GOOD, in_shape, mutants
from pydantic import BaseModel

from ref_engine.library import Store
from ref_engine_app.serve import Server
from ref_engine_app.settings import Settings

NODE = Path(__file__).with_name("node")
QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
ANSWER = "The capital of France is Paris."  # with the preset's empty system prompt; see ref_engine/cli/presets.py
NAMES = ("qwen3-coder", "gpt-oss:20b", "qwen3:8b", "gemma4", "m")  # names that the examples and other tests use
SHORT = {"max_tokens": 24, "temperature": 0}
LONGER = {"max_tokens": 40, "temperature": 0}
WEATHER = {
    "type": "object",
    "properties": {"location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}},
    "required": ["location"],
}


@dataclass(frozen=True)
class Clients:
    url: str
    anthropic: anthropic.Anthropic
    openai: openai.OpenAI
    ollama: ollama.Client


@pytest.fixture(scope="module")
def sdk(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """A server over a socket with the default model under several names, and a client of each kind."""
    store = Store(tmp_path_factory.mktemp("store"), read_only=())
    store.add_file("smollm2:135m", smollm2)
    for name in NAMES:
        store.copy("smollm2:135m", name)
    server = Server(Settings(port=0, n_ctx=768, parallel=2, engine={"n_threads": 1}), store)
    server.start()
    try:
        with (
            anthropic.Anthropic(base_url=server.url, api_key="ollama", max_retries=0) as claude,
            openai.OpenAI(base_url=f"{server.url}/v1/", api_key="ollama", max_retries=0) as gpt,
            ollama.Client(host=server.url) as llama,
        ):
            yield Clients(server.url, claude, gpt, llama)
    finally:
        server.stop()


class Country(BaseModel):
    name: str
    capital: str
    languages: list[str]  # open: only a penalty on repetition ends it


# -- the same text everywhere ---------------------------------------------------------------------------------


def test_temperature_0_is_the_same_text_in_every_dialect(sdk: Clients) -> None:
    cold = {"extra_body": {"temperature": 0}}  # the newest SDK has no parameter for it
    message = sdk.anthropic.messages.create(model="qwen3-coder", max_tokens=24, messages=MESSAGES, **cold)
    with sdk.anthropic.messages.stream(model="qwen3-coder", max_tokens=24, messages=MESSAGES, **cold) as stream:
        streamed = "".join(stream.text_stream)
    completion = sdk.openai.chat.completions.create(model="gpt-oss:20b", messages=MESSAGES, **SHORT)
    chunks = sdk.openai.chat.completions.create(model="gpt-oss:20b", messages=MESSAGES, **SHORT, stream=True)
    response = sdk.openai.responses.create(model="qwen3:8b", input=QUESTION, max_output_tokens=24, temperature=0)
    options = {"temperature": 0, "num_predict": 24}
    chat = sdk.ollama.chat(model="gemma4", messages=MESSAGES, options=options)
    parts = sdk.ollama.chat(model="gemma4", messages=MESSAGES, options=options, stream=True)
    generated = sdk.ollama.generate(model="gemma4", prompt=QUESTION, options=options)
    assert [
        message.content[0].text,
        streamed,
        completion.choices[0].message.content,
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
        response.output_text,
        chat.message.content,
        "".join(part.message.content or "" for part in parts),
        generated.response,
    ] == [ANSWER] * 8


def test_raw_prompts_are_the_same_text_too(sdk: Clients) -> None:
    completion = sdk.openai.completions.create(model="m", prompt="1, 2, 3, 4,", max_tokens=8, temperature=0)
    options = {"temperature": 0, "num_predict": 8}
    raw = sdk.ollama.generate(model="m", prompt="1, 2, 3, 4,", raw=True, options=options)
    assert completion.choices[0].text == raw.response
    assert raw.response.startswith(" 5, 6")


def test_usage_is_what_count_tokens_says(sdk: Clients) -> None:
    """Also where the prompt is in the cache of an earlier request: then it says so."""
    asked = [{"role": "user", "content": "Name a colour, please."}]
    counted = sdk.anthropic.messages.count_tokens(model="m", messages=asked).input_tokens
    first, second = (
        sdk.anthropic.messages.create(model="m", max_tokens=1, messages=asked, extra_body={"temperature": 0}).usage
        for _ in range(2)
    )
    for usage in (first, second):
        read, created = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        assert usage.input_tokens + read + created == counted
    assert (second.cache_read_input_tokens or 0) > (first.cache_read_input_tokens or 0)
    completion = sdk.openai.chat.completions.create(model="m", messages=asked, max_tokens=1)
    chat = sdk.ollama.chat(model="m", messages=asked, options={"num_predict": 1})
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, chat.prompt_eval_count) == (counted, counted)
    assert (completion.usage.completion_tokens, chat.eval_count) == (1, 1)
    assert chat.total_duration is not None and chat.total_duration >= (chat.prompt_eval_duration or 0) > 0


@pytest.mark.parametrize("stop", ["Paris", " is", "The capital of France is Paris.", "e cap"])
def test_no_output_contains_a_stop_sequence(sdk: Clients, stop: str) -> None:
    want = ANSWER[: ANSWER.index(stop)]
    message = sdk.anthropic.messages.create(
        model="m", max_tokens=24, messages=MESSAGES, stop_sequences=[stop, "@@"], extra_body={"temperature": 0}
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert "".join(block.text for block in message.content) == want
    chunks = sdk.openai.chat.completions.create(model="m", messages=MESSAGES, **SHORT, stop=stop, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == want
    options = {"temperature": 0, "num_predict": 24, "stop": [stop]}
    assert sdk.ollama.chat(model="m", messages=MESSAGES, options=options).message.content == want


def test_a_prefill_is_continued(sdk: Clients) -> None:
    begun = [*MESSAGES, {"role": "assistant", "content": "The capital of France"}]
    message = sdk.anthropic.messages.create(model="m", max_tokens=8, messages=begun, extra_body={"temperature": 0})
    completion = sdk.openai.chat.completions.create(model="m", messages=begun, **SHORT)
    chat = sdk.ollama.chat(model="m", messages=begun, options={"temperature": 0, "num_predict": 24})
    told = [message.content[0].text, completion.choices[0].message.content, chat.message.content]
    assert told == [" is Paris."] * 3


# -- tools ----------------------------------------------------------------------------------------------------


def test_a_forced_tool_of_anthropic(sdk: Clients) -> None:
    """Whole and streamed: one tool_use whose input the schema allows."""
    ask: dict[str, Any] = {
        "model": "qwen3-coder",
        "max_tokens": 200,
        "tools": [
            {"name": "get_weather", "description": "Get the current weather in a location", "input_schema": WEATHER}
        ],
        "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
        "messages": [{"role": "user", "content": "What's the weather in San Francisco?"}],
        "extra_body": {"temperature": 0},
    }
    message = sdk.anthropic.messages.create(**ask)
    with sdk.anthropic.messages.stream(**ask) as stream:
        streamed = stream.get_final_message()
    for each in (message, streamed):
        (block,) = [block for block in each.content if block.type == "tool_use"]
        assert each.stop_reason == "tool_use" and block.name == "get_weather"
        assert list(block.input) == ["location"] and isinstance(block.input["location"], str)
        assert "San Francisco" in block.input["location"]
    # the second request of the example: the result goes back
    result = [{"type": "tool_result", "tool_use_id": block.id, "content": "15°C"}]
    again = [*ask["messages"], streamed.to_param(), {"role": "user", "content": result}]
    final = sdk.anthropic.messages.create(
        **{**ask, "tool_choice": {"type": "none"}, "messages": again, "max_tokens": 16}
    )
    assert [block.type for block in final.content] == ["text"]


def test_a_required_tool_of_openai(sdk: Clients) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER, "strict": True}}
    ask: dict[str, Any] = {
        "model": "gpt-oss:20b",
        "messages": [{"role": "user", "content": "What's the weather in Paris?"}],
        "tools": [tool],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
        "max_tokens": 200,
    }
    completion = sdk.openai.chat.completions.create(**ask)
    (call,) = completion.choices[0].message.tool_calls or []
    assert completion.choices[0].finish_reason == "tool_calls"
    pieces = [
        piece.function.arguments or ""
        for chunk in sdk.openai.chat.completions.create(**ask, stream=True)
        for piece in chunk.choices[0].delta.tool_calls or []
    ]
    assert json.loads("".join(pieces)) == json.loads(call.function.arguments)
    assert isinstance(json.loads(call.function.arguments)["location"], str)
    response = sdk.openai.responses.create(
        model="qwen3:8b",
        input="What's the weather in Paris?",
        tools=[{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}],
        tool_choice={"type": "function", "name": "get_weather"},
        temperature=0,
        max_output_tokens=200,
    )
    made = [item for item in response.output if item.type == "function_call"]
    assert made[0].name == "get_weather" and isinstance(json.loads(made[0].arguments)["location"], str)


def test_strict_tools_that_may_be_called(sdk: Clients) -> None:
    """Nothing forces a call, but the prefill begins one; by itself this model gives {"ARGUMENT": "VALUE"}."""
    messages: list[Any] = [*MESSAGES, {"role": "assistant", "content": "<tool_call>"}]
    schema = {
        "type": "object",
        "properties": {"seats": {"type": "integer", "minimum": 1, "maximum": 9}, "style": {"enum": ["loud", "quiet"]}},
        "required": ["seats", "style"],
        "additionalProperties": False,
    }
    tool = {"name": "book", "description": "Book a table", "strict": True}
    completion = sdk.openai.chat.completions.create(
        model="m", messages=messages, tools=[{"type": "function", "function": {**tool, "parameters": schema}}], **LONGER
    )
    (call,) = completion.choices[0].message.tool_calls or ()
    message = sdk.anthropic.messages.create(
        model="m",
        max_tokens=40,
        messages=messages,
        tools=[{**tool, "input_schema": schema}],
        extra_body={"temperature": 0},
    )
    (block,) = [block for block in message.content if block.type == "tool_use"]
    for name, given in ((call.function.name, json.loads(call.function.arguments)), (block.name, block.input)):
        assert name == "book" and given["style"] in ("loud", "quiet") and 1 <= given["seats"] <= 9
        assert set(given) == {"seats", "style"}


def test_tools_of_ollama(sdk: Clients) -> None:
    """The tool example with a Python function; a small model may answer in text, so both turns are looked at."""

    def get_temperature(city: str) -> str:
        """Get the current temperature for a city

        Args:
          city: The name of the city

        Returns:
          The current temperature for the city
        """
        return {"New York": "22°C", "London": "15°C"}.get(city, "Unknown")

    options = {"temperature": 0, "num_predict": 40}
    messages: list[Any] = [{"role": "user", "content": "What is the temperature in New York?"}]
    response = sdk.ollama.chat(model="m", messages=messages, tools=[get_temperature], think=True, options=options)
    assert response.message.content or response.message.tool_calls
    messages.append(response.message)
    for call in response.message.tool_calls or []:
        assert call.function.name == "get_temperature"
        result = get_temperature(**call.function.arguments)
        messages.append({"role": "tool", "tool_name": call.function.name, "content": result})
    messages.append({"role": "user", "content": "Thank you."})
    final = sdk.ollama.chat(model="m", messages=messages, tools=[get_temperature], options=options)
    assert (final.prompt_eval_count or 0) > (response.prompt_eval_count or 0)


# -- structured answers ---------------------------------------------------------------------------------------


def test_structured_answers(sdk: Clients) -> None:
    """A model of pydantic goes in as a schema in each SDK's own way, and what comes out obeys it."""
    asked = [{"role": "user", "content": "Tell me about Canada."}]
    cold = {"extra_body": {"temperature": 0}}
    parsed = sdk.anthropic.messages.parse(model="m", max_tokens=200, messages=asked, output_format=Country, **cold)
    assert isinstance(parsed.parsed_output, Country)
    completion = sdk.openai.chat.completions.parse(
        model="m", messages=asked, response_format=Country, max_tokens=200, temperature=0
    )
    assert isinstance(completion.choices[0].message.parsed, Country)
    response = sdk.openai.responses.parse(
        model="m", input="Tell me about Canada.", text_format=Country, max_output_tokens=200, temperature=0
    )
    assert isinstance(response.output_parsed, Country)
    options = {"temperature": 0, "num_predict": 200}
    chat = sdk.ollama.chat(model="m", messages=asked, format=Country.model_json_schema(), options=options)
    assert Country.model_validate_json(chat.message.content or "").name != ""
    loose = sdk.ollama.chat(model="m", messages=asked, format="json", options={"temperature": 0, "num_predict": 300})
    assert loose.done_reason == "length" or isinstance(json.loads(loose.message.content or ""), dict)


# -- the rest of the examples ---------------------------------------------------------------------------------


def test_embeddings(sdk: Clients) -> None:
    texts = ["why is the sky blue?", "why is the grass green?"]
    first = sdk.openai.embeddings.create(model="m", input=texts)
    second = sdk.ollama.embed(model="m", input=texts)
    third = sdk.ollama.embeddings(model="m", prompt=texts[0])
    assert [len(each.embedding) for each in first.data] == [576, 576]
    for one, other in zip(first.data, second.embeddings, strict=True):
        assert one.embedding == pytest.approx(list(other), abs=1e-6)
        assert math.hypot(*one.embedding) == pytest.approx(1, abs=1e-5)
    assert list(third.embedding) == pytest.approx(first.data[0].embedding, abs=1e-6)
    assert first.data[0].embedding != first.data[1].embedding
    short = sdk.openai.embeddings.create(model="m", input=texts[0], dimensions=8).data[0].embedding
    size = math.hypot(*first.data[0].embedding[:8])
    assert short == pytest.approx([x / size for x in first.data[0].embedding[:8]], abs=1e-5)


def test_log_probabilities(sdk: Clients) -> None:
    completion = sdk.openai.chat.completions.create(
        model="m", messages=MESSAGES, **SHORT, logprobs=True, top_logprobs=3
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    content = logprobs.content
    assert "".join(token.token for token in content[:7]) == ANSWER
    for token in content:
        assert token.logprob <= 0 and token.top_logprobs[0].logprob == token.logprob  # greedy: the likeliest one
        assert len(token.top_logprobs) == 3


def test_several_choices(sdk: Clients) -> None:
    completion = sdk.openai.chat.completions.create(
        model="m", messages=MESSAGES, n=3, seed=1, temperature=1.5, max_tokens=8
    )
    texts = [choice.message.content for choice in completion.choices]
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert completion.usage is not None and completion.usage.completion_tokens <= 24


def test_models_are_listed_in_every_dialect(sdk: Clients) -> None:
    names = {model.model for model in sdk.ollama.list().models}
    assert {"smollm2:135m", "qwen3-coder:latest", "gpt-oss:20b"} <= names
    assert {model.id for model in sdk.anthropic.models.list(limit=100)} == names
    assert {model.id for model in sdk.openai.models.list()} == names
    assert sdk.openai.models.retrieve("qwen3-coder").object == "model"
    assert sdk.ollama.show("qwen3-coder").modelinfo is not None


def test_errors_have_the_classes_of_the_sdks(sdk: Clients) -> None:
    with pytest.raises(anthropic.NotFoundError):
        sdk.anthropic.messages.create(model="no-such", max_tokens=1, messages=MESSAGES)
    with pytest.raises(openai.NotFoundError):
        sdk.openai.chat.completions.create(model="no-such", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        sdk.openai.chat.completions.create(model="m", messages=MESSAGES, temperature=9)
    with pytest.raises(ollama.ResponseError) as caught:
        sdk.ollama.chat(model="no-such", messages=MESSAGES)
    assert caught.value.status_code == 404
    long = [{"role": "user", "content": "word " * 2000}]
    with pytest.raises(anthropic.BadRequestError, match="tokens"):
        sdk.anthropic.messages.create(model="m", max_tokens=1, messages=long)
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.openai.chat.completions.create(model="m", messages=long)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("path", GOOD)
def test_malformed_requests_over_the_socket(sdk: Clients, path: str) -> None:
    """As test_malformed.py, with a model behind: what gets through the fields must not fall over later."""
    with requests.Session() as session:
        for body in [*BODIES, *mutants(GOOD[path], 12, seed=2)[-12:]]:
            response = session.post(sdk.url + path, data=body, timeout=60)
            assert response.status_code < 500, (body[:300], response.text)
            if response.status_code >= 400:
                assert in_shape(path, response.json()), (body[:300], response.text)
        name = json.dumps({**GOOD[path], "model": "../../../../etc/passwd"})
        assert session.post(sdk.url + path, data=name, timeout=60).status_code in (400, 404)
        assert session.post(sdk.url + path, json=GOOD[path], timeout=60).status_code == 200


ABOUT_MODELS = {
    ("POST", "/api/show"): {"model": "m", "verbose": False},
    ("POST", "/api/copy"): {"source": "m", "destination": "copied"},
    ("POST", "/api/create"): {
        "model": "made",
        "from": "m",
        "system": "s",
        "license": ["l"],
        "parameters": {"temperature": 0.5, "stop": ["x"]},
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    },
    ("DELETE", "/api/delete"): {"model": "made"},
}


def test_malformed_requests_about_models(sdk: Clients) -> None:
    with requests.Session() as session:
        for (method, path), good in ABOUT_MODELS.items():
            for body in [*BODIES, *mutants(good, 40, seed=3)]:
                response = session.request(method, sdk.url + path, data=body, timeout=60)
                assert response.status_code < 500, (path, body[:300], response.text)
                if response.status_code >= 400:
                    assert in_shape(path, response.json()), (path, body[:300], response.text)
            response = session.request(method, sdk.url + path, json=good, timeout=60)
            assert response.status_code == 200 or path == "/api/delete", response.text  # a mutant may have deleted it
        for path in ("/api/pull", "/api/push"):
            for body in BODIES:
                response = session.post(sdk.url + path, data=body, timeout=60)
                assert response.status_code == 400 and in_shape(path, response.json())
        for digest in ("x", "sha256:", "sha256:" + "0" * 63, "sha256:..%2f..%2fetc%2fpasswd", "sha256-" + "g" * 64):
            assert session.post(f"{sdk.url}/api/blobs/{digest}", data=b"GGUF", timeout=60).status_code in (400, 404)
            assert session.head(f"{sdk.url}/api/blobs/{digest}", timeout=60).status_code in (400, 404)
        wrong = session.post(f"{sdk.url}/api/blobs/sha256:{'0' * 64}", data=b"GGUF", timeout=60)
        assert wrong.status_code == 400 and in_shape("/api/blobs", wrong.json())
        assert session.get(f"{sdk.url}/api/tags", timeout=60).json()["models"]
    # the shared model is still what it was
    assert sdk.ollama.show("m").modelinfo is not None


# -- JavaScript -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("node") is None, reason="does not apply: there is no Node here")
def test_the_javascript_sdks(sdk: Clients) -> None:
    if not (NODE / "node_modules" / "openai").is_dir():
        pytest.skip("the JavaScript SDKs are not here: `make node` fetches them")
    command = ["node", str(NODE / "examples.mjs"), sdk.url, "smollm2:135m"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    texts = ("anthropic", "anthropicStream", "anthropicFinal", "openai", "openaiStream", "responses")
    assert {name: found[name] for name in texts} == dict.fromkeys(texts, ANSWER)
    assert [found[name] for name in ("ollama", "ollamaStream", "ollamaGenerate")] == [ANSWER] * 3
    assert found["anthropicStop"] == "end_turn"
    usage = found["anthropicUsage"]
    parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    assert sum(usage[part] for part in parts) == found["anthropicCount"]
    assert found["anthropicTool"]["name"] == "get_weather"
    assert list(found["anthropicTool"]["input"]) == ["location"]
    assert list(json.loads(found["openaiTool"]["arguments"])) == ["location"]
    for name in ("openaiJson", "ollamaJson"):
        assert set(found[name]) == {"name", "capital"}
    assert found["ollamaTools"]["content"] or found["ollamaTools"]["calls"]
    assert found["openaiNorm"] == pytest.approx(1, abs=1e-4) and found["ollamaNorm"] == pytest.approx(1, abs=1e-4)
    assert "smollm2:135m" in found["openaiModels"] and "smollm2:135m" in found["ollamaModels"]
    assert found["anthropicError"] == ["NotFoundError", 404, "not_found_error"]
    assert found["openaiError"] == ["BadRequestError", 400, "temperature"]
    assert found["ollamaError"] == ["ResponseError", 404]
