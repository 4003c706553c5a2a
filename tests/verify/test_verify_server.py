"""A server as what is verified: ours over sockets passes in both dialects, one that lies is told where."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import ref_engine
from ref_engine.errors import RefEngineError
from ref_engine.library import Store
from ref_engine.verify.engines.server import find_server
from ref_engine.verify.packs.server import N_TOKENS, PROMPTS, cases
from ref_engine.verify.run import Result, run_cases
from ref_engine_app.logs import Log
from ref_engine_app.serve import Server as OurServer
from ref_engine_app.settings import Settings

Answer = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def model(golden: Path) -> ref_engine.Model:
    return ref_engine.load(golden / "models" / "tiny-moe.gguf", n_threads=1)


@pytest.fixture(scope="module")
def ours(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = Store(tmp_path_factory.mktemp("models"), read_only=())
    store.add_file("tiny", golden / "models" / "tiny-moe.gguf")
    server = OurServer(Settings(port=0, grace=0.0, engine={"n_threads": 1}), store, Log(io.StringIO()))
    server.start()
    yield server.url
    server.stop()


@pytest.mark.parametrize("dialect", ["ollama", "openai"])
def test_our_own_server_passes(dialect: str, ours: str, model: ref_engine.Model) -> None:
    server = find_server(ours + "/", dialect, "tiny", 60)
    results = list(run_cases(cases(server, model)))
    assert len(results) == 4 * len(PROMPTS)
    assert [(r.case.id, r.finding.message) for r in results if r.status != "passed"] == []
    steps = [r.finding.figures["worst step"] for r in results if r.case.operation == "greedy"]
    assert max(steps) < 1e-3  # the same engine: its own best token at every step


def test_the_dialect_is_found(ours: str) -> None:
    assert find_server(ours, "auto", "tiny", 60).dialect == "ollama"


# -- one that says what it is told ----------------------------------------------------------------------------------


@pytest.fixture
def scripted() -> Iterator[Callable[[Answer], str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(200 if self.path == "/v1/models" else 404, {"data": []})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                found = answer(body)
                self._say(*found) if isinstance(found, tuple) else self._say(200, found)

            def _say(self, status: int, body: Any) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(ConnectionError):  # a client that has had enough
                    self.wfile.write(data)

            def log_message(self, *args: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def truth(model: ref_engine.Model) -> Callable[[str], dict[str, Any]]:
    """What an honest server would say, from the engine itself, in the form of vLLM."""
    said: dict[str, dict[str, Any]] = {}

    def of(prompt: str) -> dict[str, Any]:
        if prompt not in said:
            events = list(model.generate(prompt, max_tokens=N_TOKENS, temperature=0, logprobs=1))
            events = [event for event in events if event.token is not None]
            pieces = [model.tokenizer.token_bytes(event.token).decode("utf-8", "replace") for event in events]
            logprobs = {"tokens": pieces, "token_logprobs": [event.logprob for event in events]}
            choice = {"text": "".join(e.text for e in events), "finish_reason": "length", "logprobs": logprobs}
            usage = {"prompt_tokens": len(model.tokenize(prompt)), "completion_tokens": len(events)}
            said[prompt] = {"choices": [choice], "usage": usage}
        return json.loads(json.dumps(said[prompt]))  # type: ignore[no-any-return]

    return of


def verdicts(url: str, model: ref_engine.Model, timeout: float = 30) -> dict[str, Result]:
    """Of the cases about one prompt, by what they check."""
    found = cases(find_server(url, "auto", "m", timeout), model)
    return {case.operation: result for case in found[:4] for result in run_cases([case])}


def failing(results: dict[str, Result]) -> dict[str, str]:
    return {name: r.finding.message for name, r in results.items() if r.status == "failed"}


def test_an_honest_one_passes(
    scripted: Callable[[Answer], str], model: ref_engine.Model, truth: Callable[[str], dict[str, Any]]
) -> None:
    results = verdicts(scripted(lambda body: truth(body["prompt"])), model)
    assert {name: r.status for name, r in results.items()} == dict.fromkeys(results, "passed")


def test_a_wrong_token(
    scripted: Callable[[Answer], str], model: ref_engine.Model, truth: Callable[[str], dict[str, Any]]
) -> None:
    wrong = int(model.logits(model.tokenize(PROMPTS["prose"]))[-1].argmin())
    piece = model.tokenizer.token_bytes(wrong).decode("utf-8", "replace")

    def lie(body: dict[str, Any]) -> Any:
        reply = truth(body["prompt"])
        reply["choices"][0]["logprobs"]["tokens"][0] = piece
        return reply

    found = failing(verdicts(scripted(lie), model))
    assert "token 0 is" in found["greedy"] and "nats more likely" in found["greedy"]


@pytest.mark.parametrize(
    ("value", "message"),
    [(-9.0, "mean difference"), (0.5, "above zero"), (None, "no number"), ("x", "no number")],
)
def test_wrong_logprobs(
    value: Any,
    message: str,
    scripted: Callable[[Answer], str],
    model: ref_engine.Model,
    truth: Callable[[str], dict[str, Any]],
) -> None:
    def lie(body: dict[str, Any]) -> Any:
        reply = truth(body["prompt"])
        reply["choices"][0]["logprobs"]["token_logprobs"] = [value] * N_TOKENS
        return reply

    assert message in failing(verdicts(scripted(lie), model))["logprobs"]


def test_no_logprobs_and_no_counts(
    scripted: Callable[[Answer], str], model: ref_engine.Model, truth: Callable[[str], dict[str, Any]]
) -> None:
    def silent(body: dict[str, Any]) -> Any:
        reply = truth(body["prompt"])
        return {"choices": [{"text": reply["choices"][0]["text"], "logprobs": None}]}

    results = verdicts(scripted(silent), model)
    assert {name: r.status for name, r in results.items()} == {
        "greedy": "passed",
        "logprobs": "skipped",
        "prompt-tokens": "skipped",
        "tokens": "skipped",
    }


def test_wrong_counts_and_an_early_end(
    scripted: Callable[[Answer], str], model: ref_engine.Model, truth: Callable[[str], dict[str, Any]]
) -> None:
    def lie(body: dict[str, Any]) -> Any:
        reply = truth(body["prompt"])
        logprobs = reply["choices"][0]["logprobs"]
        reply["choices"][0]["logprobs"] = {key: values[:4] for key, values in logprobs.items()}
        reply["usage"] = {"prompt_tokens": reply["usage"]["prompt_tokens"] + 1, "completion_tokens": 9}
        return reply

    found = failing(verdicts(scripted(lie), model))
    assert found["prompt-tokens"].endswith("tokens of the prompt, expected " + found["prompt-tokens"].split()[-1])
    assert found["tokens"] == "9 tokens of the answer, expected 4 or 5"
    assert found["greedy"].startswith(f"it ended after 4 of {N_TOKENS} tokens (length), the reference goes on with ")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((500, {"error": "CUDA out of memory"}), r"answered 500: {\"error\": \"CUDA out of memory\"}"),
        ((200, b"<html>"), "no JSON object: '<html>'"),
        ((200, b"[1]"), "no JSON object"),
        ({"choices": []}, "has no choices"),
        ({"choices": [{"text": 5}]}, "no text as choices[0].text"),
        ({"choices": [{"text": ""}], "usage": {"prompt_tokens": -3}}, "prompt_tokens is -3, which is no count"),
        ((200, b"{" + b" " * (9 << 20)), "more than 8 MB"),
    ],
)
def test_answers_that_are_none(
    answer: Any, message: str, scripted: Callable[[Answer], str], model: ref_engine.Model
) -> None:
    found = failing(verdicts(scripted(lambda body: answer), model))
    assert len(found) == 4 and all(message.replace("\\", "") in text for text in found.values()), found


def test_one_that_hangs_is_asked_once_for_each_prompt(
    scripted: Callable[[Answer], str], model: ref_engine.Model
) -> None:
    asked = []

    def hang(body: dict[str, Any]) -> Any:
        asked.append(body)
        time.sleep(2)
        return {}

    found = failing(verdicts(scripted(hang), model, timeout=0.3))
    assert len(asked) == 1 and set(found.values()) == {next(iter(found.values()))}
    assert "gave no answer within 0.3 s" in found["greedy"]


def test_a_field_that_is_refused_is_left_out(
    scripted: Callable[[Answer], str], model: ref_engine.Model, truth: Callable[[str], dict[str, Any]]
) -> None:
    def strict(body: dict[str, Any]) -> Any:
        return (400, {"error": "repeat_penalty?"}) if "repeat_penalty" in body else truth(body["prompt"])

    assert failing(verdicts(scripted(strict), model)) == {}


def test_nobody_there() -> None:
    with pytest.raises(RefEngineError, match="cannot be reached"):
        find_server("http://127.0.0.1:9", "auto", "m", 2)
    with pytest.raises(RefEngineError, match="begins with http"):
        find_server("localhost:11434", "auto", "m", 2)
