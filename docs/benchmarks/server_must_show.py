"""What the server has to hold, on the 135M model, with the official SDKs: `python docs/benchmarks/server_must_show.py`.

    tools      50 drawn schemas, a call forced in each dialect that can: a tool_use whose input meets its schema
    schemas    50 drawn schemas as the format of an answer: it parses and meets them
    same       temperature 0: one text in the three dialects, streamed and not; usage is what count_tokens says
    stops      drawn stop strings, cut across tokens: none is ever in a text, in any dialect
    malformed  some thousand requests that cannot be meant: 4xx in the dialect's form, and then an answer
    examples   Ollama's documentation: basic, streaming, tools, structured output, for Python and for JavaScript

Prints a line for each part and leaves with 1 where one fails. Texts are read by several clients at once.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "text"), str(ROOT / "tests" / "dialects")]

import anthropic  # noqa: E402
import jsonschema  # noqa: E402
import ollama  # noqa: E402
import openai  # noqa: E402
import requests  # noqa: E402
from drawn_schemas import draw_schema  # noqa: E402 - tests/text
from malformed import BODIES, GOOD, in_shape, mutants  # noqa: E402 - tests/dialects
from pydantic import BaseModel  # noqa: E402

from ref_engine.library import Store  # noqa: E402
from ref_engine_app.serve import Server  # noqa: E402
from ref_engine_app.settings import Settings  # noqa: E402

CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
NAMES = ("m", "gemma3", "qwen3", "gpt-oss", "llama3.2", "llama3.1", "qwen3-coder", "qwen3:8b", "gpt-oss:20b")
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "Write a haiku about rain.",
    "Count from one to five.",
    "Was ist Käse? Sag es kurz.",
    "Translate 'good morning' to Spanish.",
)
NODE = ROOT / "tests" / "dialects" / "node"


@dataclass(frozen=True)
class Clients:
    url: str
    claude: anthropic.Anthropic
    gpt: openai.OpenAI
    llama: ollama.Client


def several(work: Callable[[int], str | None], count: int, workers: int) -> list[str]:
    """What went wrong, one line each."""
    with ThreadPoolExecutor(workers) as pool:
        return [f"{i}: {problem}" for i, problem in enumerate(pool.map(work, range(count))) if problem]


def trouble(value: object, schema: dict[str, Any]) -> str | None:
    try:
        jsonschema.validate(value, schema, format_checker=CHECKER)
    except jsonschema.ValidationError as error:
        return f"{error.message[:100]} in {json.dumps(value)[:200]}"
    return None


# -- tools and schemas --------------------------------------------------------------------------------------------

RECORD = [{"role": "user", "content": "Record something plausible."}]


def forced_tool(to: Clients, seed: int) -> str | None:
    schema = draw_schema(seed)
    message = to.claude.messages.create(
        model="m",
        max_tokens=400,
        messages=RECORD,
        tools=[{"name": "record", "description": "Records what is known.", "input_schema": schema}],
        tool_choice={"type": "tool", "name": "record"},
        extra_body={"temperature": [0, 0.8, 1][seed % 3]},
    )
    calls = [block for block in message.content if block.type == "tool_use"]
    if len(calls) != 1 or len(message.content) != 1 or calls[0].name != "record":
        return f"{message.stop_reason}: {message.content}"
    return trouble(calls[0].input, schema)


def forced_function(to: Clients, seed: int) -> str | None:
    schema = draw_schema(seed)
    completion = to.gpt.chat.completions.create(
        model="m",
        max_tokens=400,
        messages=RECORD,
        tools=[{"type": "function", "function": {"name": "record", "parameters": schema}}],
        tool_choice="required",
        parallel_tool_calls=False,
        seed=seed,
    )
    message = completion.choices[0].message
    if len(message.tool_calls or ()) != 1 or message.content:
        return f"{completion.choices[0].finish_reason}: {message}"
    return trouble(json.loads(message.tool_calls[0].function.arguments), schema)


def held_answer(to: Clients, seed: int) -> str | None:
    """A third of them in each dialect."""
    schema, asked = draw_schema(seed), [{"role": "user", "content": "Make up an example record."}]
    if seed % 3 == 0:
        form = {"type": "json_schema", "json_schema": {"name": "record", "schema": schema, "strict": True}}
        completion = to.gpt.chat.completions.create(
            model="m", messages=asked, max_tokens=400, response_format=form, seed=seed
        )
        text = completion.choices[0].message.content
    elif seed % 3 == 1:
        options = {"num_predict": 400, "seed": seed}
        text = to.llama.chat(model="m", messages=asked, format=schema, options=options).message.content
    else:
        form = {"format": {"type": "json_schema", "schema": schema}}
        message = to.claude.messages.create(
            model="m", messages=asked, max_tokens=400, extra_body={"output_config": form}
        )
        text = "".join(block.text for block in message.content)
    try:
        return trouble(json.loads(text or ""), schema)
    except ValueError as error:
        return f"{error} in {text!r}"


# -- one text in all dialects ------------------------------------------------------------------------------------


def texts(to: Clients, question: str, n: int, stop: list[str] | None = None) -> list[str]:
    """The answer at temperature 0 in every dialect, whole and streamed."""
    asked: list[Any] = [{"role": "user", "content": question}]
    cold: Any = {"model": "m", "messages": asked, "max_tokens": n, "temperature": 0}
    message = requests.post(f"{to.url}/v1/messages", json={**cold, "stop_sequences": stop or []}, timeout=600).json()
    with to.claude.messages.stream(
        model="m", messages=asked, max_tokens=n, stop_sequences=stop or [], extra_body={"temperature": 0}
    ) as stream:
        streamed = "".join(stream.text_stream)
    completion = to.gpt.chat.completions.create(**cold, stop=stop)
    chunks = to.gpt.chat.completions.create(**cold, stop=stop, stream=True)
    options = {"temperature": 0, "num_predict": n, "stop": stop or []}
    chat = to.llama.chat(model="m", messages=asked, options=options)
    parts = to.llama.chat(model="m", messages=asked, options=options, stream=True)
    return [
        "".join(block["text"] for block in message["content"]),
        streamed,
        completion.choices[0].message.content or "",
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
        chat.message.content or "",
        "".join(part.message.content or "" for part in parts),
    ]


def same_text(to: Clients, i: int) -> str | None:
    question = QUESTIONS[i]
    said = texts(to, question, 40)
    if len(set(said)) != 1 or not said[0]:
        return f"{said}"
    asked: list[Any] = [{"role": "user", "content": question}]
    counted = to.claude.messages.count_tokens(model="m", messages=asked).input_tokens
    usage = to.claude.messages.create(model="m", messages=asked, max_tokens=1).usage
    claude = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    gpt = to.gpt.chat.completions.create(model="m", messages=asked, max_tokens=1).usage
    response = to.gpt.responses.create(model="m", input=question, max_output_tokens=16).usage
    llama = to.llama.chat(model="m", messages=asked, options={"num_predict": 1}).prompt_eval_count
    assert gpt is not None and response is not None
    found = [counted, claude, gpt.prompt_tokens, response.input_tokens, llama]
    return None if len(set(found)) == 1 else f"tokens {found}"


def stopped(to: Clients, i: int) -> str | None:
    """Pieces of the answer itself, cut anywhere, beside strings that nearly occur."""
    draw = random.Random(i)
    question = QUESTIONS[i % len(QUESTIONS)]
    free = texts(to, question, 40)[0]
    at = draw.randrange(len(free) - 1)
    stops = [free[at : at + draw.randint(1, 9)], free[at : at + 5] + "\x01", draw.choice("qxzQXZ") * 2]
    want = free[: min(free.index(stop) for stop in stops if stop in free)]
    said = texts(to, question, 40, stops)
    if any(stop in text for stop in stops for text in said):
        return f"{stops} in {said}"
    return None if all(text == want for text in said) else f"{stops}: {said}, expected {want!r}"


# -- malformed requests ------------------------------------------------------------------------------------------


def malformed(to: Clients, path: str, count: int, seed: int) -> tuple[int, list[str]]:
    bodies, wrong = [*BODIES, *mutants(GOOD[path], count, seed)], []
    with requests.Session() as session:
        for body in bodies:
            response = session.post(to.url + path, data=body, timeout=300)
            bad = response.status_code >= 500 or (response.status_code >= 400 and not in_shape(path, response.json()))
            if bad:
                wrong.append(f"{path} {response.status_code} {body[:200]!r}: {response.text[:200]}")
        good = session.post(to.url + path, json=GOOD[path], timeout=300)
        if good.status_code != 200:
            wrong.append(f"{path}: then {good.status_code} for a good request")
    return len(bodies), wrong


# -- Ollama's documentation --------------------------------------------------------------------------------------


class Country(BaseModel):
    name: str
    capital: str
    languages: list[str]


class Pet(BaseModel):
    name: str
    animal: str
    age: int
    color: str | None
    favorite_toy: str | None


class PetList(BaseModel):
    pets: list[Pet]


class FriendInfo(BaseModel):
    name: str
    age: int
    is_available: bool


class FriendList(BaseModel):
    friends: list[FriendInfo]


class Sentiment(BaseModel):
    sentiment: Literal["positive", "negative", "neutral"]


def get_temperature(city: str) -> str:
    """Get the current temperature for a city

    Args:
      city: The name of the city

    Returns:
      The current temperature for the city
    """
    return {"New York": "22°C", "London": "15°C", "Tokyo": "18°C"}.get(city, "Unknown")


def add_two_numbers(a: int, b: int) -> int:
    """
    Add two numbers

    Args:
      a (int): The first number
      b (int): The second number

    Returns:
      int: The sum of the two numbers
    """
    return int(a) + int(b)


SKY = [{"role": "user", "content": "Why is the sky blue?"}]
PETS = """
        I have two pets.
        A cat named Luna who is 5 years old and loves playing with yarn. She has grey fur.
        I also have a 2 year old black cat named Loki who loves tennis balls.
      """
FRIENDS = "I have two friends. The first is Ollama 22 years old busy saving the world, and the second is Alonso 23"


def basic(llama: ollama.Client) -> None:
    assert llama.chat(model="gemma3", messages=SKY)["message"]["content"]
    assert llama.generate(model="gemma3", prompt="Why is the sky blue?").response


def streaming(llama: ollama.Client) -> None:
    assert "".join(chunk["message"]["content"] for chunk in llama.chat(model="gemma3", messages=SKY, stream=True))


def structured(llama: ollama.Client) -> None:
    asked = [{"role": "user", "content": "Tell me about Canada."}]
    Country.model_validate_json(
        llama.chat(model="gpt-oss", messages=asked, format=Country.model_json_schema()).message.content or ""
    )
    asked = [{"role": "user", "content": PETS}]
    PetList.model_validate_json(
        llama.chat(model="gpt-oss", messages=asked, format=PetList.model_json_schema()).message.content or ""
    )
    response = llama.chat(
        model="llama3.1",
        messages=[{"role": "user", "content": f"{FRIENDS} years old and is traveling. Return a list in JSON format"}],
        format=FriendList.model_json_schema(),
        options={"temperature": 0},
    )
    FriendList.model_validate_json(response.message.content or "")
    json.loads(
        llama.chat(
            model="gpt-oss", messages=[{"role": "user", "content": "Tell me about Canada."}], format="json"
        ).message.content
        or ""
    )
    Sentiment.model_validate_json(
        llama.generate(model="qwen3", prompt="I love it!", format=Sentiment.model_json_schema()).response
    )


def tools(llama: ollama.Client) -> None:
    """The agent loop of the documentation, with an end: the model here likes to call for ever."""
    messages: list[Any] = [{"role": "user", "content": "What is the temperature in New York?"}]
    for _ in range(4):
        response = llama.chat(model="qwen3", messages=messages, tools=[get_temperature, add_two_numbers], think=None)
        messages.append(response.message)
        if not response.message.tool_calls:
            return
        for call in response.message.tool_calls:
            known: dict[str, Callable[..., Any]] = {f.__name__: f for f in (get_temperature, add_two_numbers)}
            function = known.get(call.function.name)
            try:
                result = "Unknown tool" if function is None else function(**call.function.arguments)
            except (TypeError, ValueError) as error:
                result = str(error)
            messages.append({"role": "tool", "tool_name": call.function.name, "content": str(result)})


def javascript(to: Clients) -> str | None:
    if shutil.which("node") is None or not (NODE / "node_modules" / "openai").is_dir():
        return "no Node, or not its SDKs: make node"
    command = ["node", str(NODE / "examples.mjs"), to.url, "m"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    return None if ran.returncode == 0 else ran.stderr[-300:]


# -- all of it ----------------------------------------------------------------------------------------------------


def report(part: str, count: int, wrong: Iterable[str], began: float) -> bool:
    wrong = list(wrong)
    print(f"{part:10} {count - len(wrong)} of {count}   {time.perf_counter() - began:.0f} s", flush=True)
    for line in wrong[:10]:
        print(f"           {line}", flush=True)
    return not wrong


def run(part: str, to: Clients, given: argparse.Namespace) -> bool:
    began, workers = time.perf_counter(), given.parallel
    if part == "tools":
        good = report("tools", 50, several(lambda i: forced_tool(to, i), 50, workers), began)
        began = time.perf_counter()
        return report("functions", 50, several(lambda i: forced_function(to, 50 + i), 50, workers), began) and good
    if part == "schemas":
        return report("schemas", 50, several(lambda i: held_answer(to, i), 50, workers), began)
    if part == "same":
        return report("same", len(QUESTIONS), several(lambda i: same_text(to, i), len(QUESTIONS), workers), began)
    if part == "stops":
        return report("stops", given.stops, several(lambda i: stopped(to, i), given.stops, workers), began)
    if part == "malformed":
        with ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(lambda path: malformed(to, path, given.mutants, given.seed), GOOD))
        return report("malformed", sum(n for n, _ in found), [line for _, wrong in found for line in wrong], began)
    good = True
    for example in (basic, streaming, structured, tools):
        began = time.perf_counter()
        try:
            example(to.llama)
            problems = []
        except Exception as error:  # noqa: BLE001 - whatever an example raises is what this reports
            problems = [f"{type(error).__name__}: {error}"]
        good &= report(example.__name__, 1, problems, began)
    began = time.perf_counter()
    return report("javascript", 1, filter(None, [javascript(to)]), began) and good


PARTS = ("tools", "schemas", "same", "stops", "malformed", "examples")


@contextmanager
def clients(given: argparse.Namespace, n_ctx: int) -> Iterator[Clients]:
    """A server of its own with the model under all the names, and a client of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, read_only=())
        store.add_file("m", Store().resolve(given.model))
        for name in NAMES[1:]:
            store.copy("m", name)
        settings = Settings(port=0, n_ctx=n_ctx, parallel=given.parallel, engine={"n_threads": given.threads})
        server = Server(settings, store)
        server.start()
        keys: dict[str, Any] = {"api_key": "ollama", "max_retries": 0, "timeout": 1200}
        try:
            with (
                anthropic.Anthropic(base_url=server.url, **keys) as claude,
                openai.OpenAI(base_url=f"{server.url}/v1/", **keys) as gpt,
                ollama.Client(host=server.url) as llama,
            ):
                yield Clients(server.url, claude, gpt, llama)
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    parser.add_argument("--model", default="smollm2:135m", help="a name of the store, or a file (smollm2:135m)")
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stops", type=int, default=24, help="drawn stop strings (24)")
    parser.add_argument("--mutants", type=int, default=400, help="of each address, besides some that are always there")
    parser.add_argument("--seed", type=int, default=20)
    given = parser.parse_args()
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"no part is called {unknown[0]}")
    good = True
    for part in given.parts or PARTS:
        with clients(
            given, 512 if part == "malformed" else 2048
        ) as to:  # requests that fit must not take minutes there
            good &= run(part, to, given)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
