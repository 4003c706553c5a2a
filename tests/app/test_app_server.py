"""The whole server over real sockets."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from running import ALPHABET, Running, eventually

from ref_engine_app.memory import need_of
from ref_engine_app.settings import Settings

Serve = Callable[..., Running]
USER = [{"role": "user", "content": "a"}]
ANTHROPIC = {"anthropic-version": "2023-06-01"}


def in_all_dialects(server: Running, **more: Any) -> list[requests.Response]:
    """The same question three times, at temperature 0."""
    openai = {"model": "bigram", "messages": USER, "temperature": 0, **more}
    return [
        server.chat("a"),
        server.post("/v1/chat/completions", openai),
        server.post("/v1/messages", {**openai, "max_tokens": 100}, headers=ANTHROPIC),
    ]


def active(server: Running) -> int:
    return sum(resident.engine.load().active for _, resident in server.server.pool.residents())


# --- answers ----------------------------------------------------------------------------------------------


def test_three_dialects_say_the_same(serve: Serve) -> None:
    server = serve()
    ollama, openai, anthropic = (response.json() for response in in_all_dialects(server))
    assert ollama["message"]["content"] == ALPHABET
    assert openai["choices"][0]["message"]["content"] == ALPHABET
    assert anthropic["content"] == [{"type": "text", "text": ALPHABET}]
    # BOS and "a"; 25 letters and the end
    assert (ollama["prompt_eval_count"], ollama["eval_count"]) == (2, 26)
    assert (openai["usage"]["prompt_tokens"], openai["usage"]["completion_tokens"]) == (2, 26)
    counted = server.post("/v1/messages/count_tokens", {"model": "bigram", "messages": USER}, headers=ANTHROPIC).json()
    used = anthropic["usage"]
    total = used["input_tokens"] + used["cache_read_input_tokens"] + used["cache_creation_input_tokens"]
    assert counted == {"input_tokens": 2} and total == 2


def test_a_conversation_is_read_once(serve: Serve) -> None:
    server = serve()
    first = {"model": "bigram", "max_tokens": 4, "temperature": 0, "messages": [{"role": "user", "content": "hello-a"}]}
    assert server.post("/v1/messages", first).json()["usage"]["cache_read_input_tokens"] == 0
    said = {"role": "assistant", "content": "bcde"}
    again = {**first, "messages": [*first["messages"], said, {"role": "user", "content": "x"}]}  # type: ignore[misc]
    usage = server.post("/v1/messages", again).json()["usage"]
    # BOS, seven letters and three of the answer were there; its last, which nobody had read, and "x" are new
    assert (usage["cache_read_input_tokens"], usage["input_tokens"]) == (11, 2)


def test_several_choices(serve: Serve) -> None:
    body = {"model": "bigram", "messages": USER, "temperature": 0, "n": 3, "max_tokens": 5}
    answer = serve(parallel=2).post("/v1/chat/completions", body).json()  # one more than there are slots
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["bcdef"] * 3
    assert answer["usage"]["completion_tokens"] == 15


def test_stop_strings_never_show(serve: Serve) -> None:
    answer = serve().chat("a", options={"stop": ["ij"]}).json()
    assert answer["message"]["content"] == "bcdefgh"


def test_a_schema_holds_for_a_model_that_knows_nothing_of_it(serve: Serve) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [7, 42]}}, "required": ["n"]}
    answer = serve().chat("a", format=schema).json()
    assert json.loads(answer["message"]["content"]) in ({"n": 7}, {"n": 42})


def test_many_at_once(serve: Serve) -> None:
    server = serve(parallel=4)
    starts = "abcdefghijklmnop"
    answers: dict[str, str] = {}

    def ask(letter: str) -> None:
        body = {"model": "bigram", "prompt": letter, "raw": True, "stream": False, "options": {"temperature": 0}}
        answers[letter] = requests.post(f"{server.url}/api/generate", json=body, timeout=60).json()["response"]

    threads = [threading.Thread(target=ask, args=(letter,)) for letter in starts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {letter: ("a" + ALPHABET).partition(letter)[2] for letter in starts}


# --- clients that leave, and those that come in vain -------------------------------------------------------


def test_whoever_leaves_frees_the_slot(serve: Serve) -> None:
    server = serve(parallel=1)
    stream = server.count()
    lines = stream.iter_lines()
    assert [json.loads(next(lines))["message"]["content"] for _ in range(3)] == ["1", "2", "3"]
    assert active(server) == 1
    stream.close()
    eventually(lambda: active(server) == 0)
    assert server.chat("a").json()["message"]["content"] == ALPHABET
    ended = [line for line in server.lines() if line["event"] == "generation"]
    assert [line["reason"] for line in ended] == ["failed", "stop"]


def test_leaving_without_a_stream_frees_the_slot(serve: Serve) -> None:
    server = serve(parallel=1)
    server.chat("a")
    body = {"model": "bigram", "messages": [{"role": "user", "content": "0"}], "stream": False}
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{server.url}/api/chat", json=body, timeout=0.3)
    eventually(lambda: active(server) == 0)


def test_a_full_queue_is_told_in_each_dialect(serve: Serve) -> None:
    server = serve(parallel=1, max_queue=0)
    with server.count() as stream:
        next(stream.iter_lines())
        responses = in_all_dialects(server)
        assert [response.status_code for response in responses] == [503, 503, 503]
        assert all(int(response.headers["Retry-After"]) > 0 for response in responses)
        ollama, openai, anthropic = (response.json() for response in responses)
        assert "wait" in ollama["error"] and "wait" in openai["error"]["message"]
        assert anthropic["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/api/chat", lambda text: "shutting down" in json.loads(text.splitlines()[-1])["error"]),
        ("/v1/chat/completions", lambda text: "shutting down" in text),
        ("/v1/messages", lambda text: "event: error" in text and "overloaded_error" in text),
    ],
)
def test_stopping_ends_open_streams_with_an_error(serve: Serve, path: str, end: Callable[[str], bool]) -> None:
    server = serve()
    body = {"model": "bigram", "messages": [{"role": "user", "content": "0"}], "stream": True}
    if path == "/v1/messages":
        body["max_tokens"] = 49_000
    stream = server.post(path, body, stream=True)
    pieces = stream.iter_content(None)
    text = next(pieces)
    server.server.stop()
    text += b"".join(pieces)  # the stream is closed as HTTP has it, or this would raise
    assert end(text.decode())
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{server.url}/", timeout=10)


def test_stopping_lets_answers_be_finished(serve: Serve) -> None:
    server = serve(grace=60.0)
    body = {"model": "bigram", "messages": [{"role": "user", "content": "0"}], "options": {"num_predict": 400}}
    stream = server.post("/api/chat", body, stream=True)
    lines = stream.iter_lines()
    next(lines)
    server.server.stop()
    last = [json.loads(line) for line in lines][-1]
    assert (last["done"], last["eval_count"]) == (True, 400)


# --- HTTP -------------------------------------------------------------------------------------------------


def test_a_connection_is_kept(serve: Serve) -> None:
    server = serve()
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.connect()
    kept = connection.sock
    for _ in range(3):
        connection.request("POST", "/api/chat", json.dumps({"model": "bigram", "messages": USER}))
        response = connection.getresponse()
        assert response.read().count(b"\n") == 26
        assert connection.sock is kept
    connection.close()


def test_bodies_over_the_limit(serve: Serve) -> None:
    server = serve(max_body=10_000)
    long = json.dumps({"model": "bigram", "messages": [{"role": "user", "content": "a" * 20_000}]}).encode()
    for path, shape in [
        ("/api/chat", lambda body: isinstance(body["error"], str)),
        ("/v1/chat/completions", lambda body: isinstance(body["error"]["message"], str)),
        ("/v1/messages", lambda body: body["error"]["type"] == "request_too_large"),
    ]:
        for data in (long, iter([long])):  # with a length, and in chunks
            response = requests.post(f"{server.url}{path}", data=data, timeout=60)
            assert response.status_code == 413
            assert shape(response.json())
    assert server.chat("a").status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_http(serve: Serve, sent: bytes) -> None:
    server = serve()
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as client:
        client.sendall(sent)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert 400 <= response.status < 500 or response.status == 501
        assert json.loads(response.read())["error"]
    assert server.get("/healthz").json() == {"status": "ok"}


def test_unknown_addresses_have_their_dialects_form(serve: Serve) -> None:
    server = serve()
    assert server.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    assert server.get("/v1/messages/nothing", headers=ANTHROPIC).json()["error"]["type"] == "not_found_error"
    assert isinstance(server.get("/api/nothing").json()["error"], str)
    wrong = server.get("/api/chat")
    assert wrong.status_code == 405 and "POST" in wrong.headers["Allow"]


def test_models_in_the_dialect_that_asks(serve: Serve) -> None:
    server = serve()
    assert server.get("/v1/models").json()["object"] == "list"
    assert server.get("/v1/models", headers=ANTHROPIC).json()["has_more"] is False
    assert server.get("/v1/models/bigram").json()["id"] == "bigram"
    assert server.get("/v1/models/none", headers=ANTHROPIC).status_code == 404


def test_long_answers_are_compressed_for_those_who_can_take_it(serve: Serve) -> None:
    server = serve()
    show = {"model": "bigram", "verbose": True}
    packed = server.post("/api/show", show, headers={"Accept-Encoding": "gzip"}, stream=True)
    assert packed.headers["Content-Encoding"] == "gzip"
    plain = server.post("/api/show", show, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.raw.read(decode_content=False)) == plain.content
    stream = server.post("/api/chat", {"model": "bigram", "messages": USER}, headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in stream.headers


def test_pages_of_others_may_not_call(serve: Serve) -> None:
    server = serve(origins=("https://*.example.com",))
    assert server.get("/api/tags", headers={"Host": "evil.example"}).status_code == 403
    assert server.get("/api/tags", headers={"Origin": "https://evil.example"}).status_code == 403
    allowed = server.get("/api/tags", headers={"Origin": "https://a.example.com"})
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://a.example.com"
    asks = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    asks["Access-Control-Request-Headers"] = "content-type, x-api-key"
    preflight = requests.options(f"{server.url}/v1/messages", headers=asks, timeout=60)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Headers"] == "content-type, x-api-key"


def test_a_key_where_one_is_set(serve: Serve) -> None:
    server = serve(api_key="s3cret")
    assert [response.status_code for response in in_all_dialects(server)] == [401, 401, 401]
    for headers in ({"Authorization": "Bearer s3cret"}, {"x-api-key": "s3cret"}):
        assert server.get("/api/tags", headers=headers).status_code == 200
    assert server.get("/api/tags", headers={"x-api-key": "other\u00e9".encode("latin-1")}).status_code == 401
    assert server.get("/healthz").status_code == 200


# --- operations -------------------------------------------------------------------------------------------


def test_figures_are_what_prometheus_reads(serve: Serve) -> None:
    server = serve()
    server.chat("a")
    server.chat('"odd" \\ name\n', model="no such")
    families = {family.name: family for family in text_string_to_metric_families(server.get("/metrics").text)}
    values = {
        (sample.name, sample.labels.get("model")): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["ref_engine_prompt_tokens_total", "bigram"] == 2
    assert values["ref_engine_completion_tokens_total", "bigram"] == 26
    assert values["ref_engine_prompt_seconds_count", "bigram"] == 1
    assert values["ref_engine_active", "bigram"] == 0
    assert families["ref_engine_request_seconds"].type == "histogram"
    statuses = {sample.labels["status"] for sample in families["ref_engine_requests"].samples}
    assert {"200", "404"} <= statuses


def test_the_log_tells_no_prompts_unless_it_is_asked_to(serve: Serve) -> None:
    quiet, open_one = serve(), serve(log_prompts=True)
    for server in (quiet, open_one):
        response = server.chat("my-secret-a")
        line = next(line for line in server.lines() if line["event"] == "generation")
        assert (line["prompt_tokens"], line["completion_tokens"], line["reason"]) == (12, 26, "stop")
        assert line["request_id"] == response.headers["request-id"]
    assert "secret" not in quiet.log.getvalue()
    assert "my-secret-a" in open_one.log.getvalue()


def test_a_defect_is_told_without_its_insides(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("inner secret")

    monkeypatch.setattr(server.server.library, "find", broken)
    for response in in_all_dialects(server):
        assert response.status_code == 500
        assert "ZeroDivisionError" in response.text and "inner secret" not in response.text
    assert "inner secret" in server.log.getvalue()


def test_a_type_of_caches_that_the_keys_do_not_fit(serve: Serve) -> None:
    """Heads of 144 are no whole blocks: said before anything is loaded."""
    answer = serve(engine={"n_threads": 1, "cache_type": "q8_0"}).chat("a")
    assert answer.status_code == 400 and "its keys are not whole blocks of q8_0" in answer.json()["error"]


def test_what_caches_need(zoo_model: Callable[[str, str], Path]) -> None:
    path, settings = zoo_model("llama-dense", "architectures/specs"), {"parallel": 2, "n_ctx": 64}
    need = {t: need_of(path, Settings(**settings, engine={"cache_type": t})).caches for t in ("f32", "f16", "q8_0")}
    assert need["f16"] == need_of(path, Settings(**settings)).caches
    assert need["f32"] == 2 * need["f16"] and need["q8_0"] * 64 == need["f16"] * 34 > 0
