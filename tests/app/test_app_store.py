"""Ollama's addresses about models, over a real socket."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from bigram import TEMPLATE, write_bigram
from running import ALPHABET, Running, eventually

from ref_engine.library import Store

Serve = Callable[..., Running]


def names(server: Running) -> list[str]:
    return [model["name"] for model in server.get("/api/tags").json()["models"]]


def in_memory(server: Running) -> list[str]:
    return [model["name"] for model in server.get("/api/ps").json()["models"]]


def test_what_programs_look_for_first(serve: Serve) -> None:
    server = serve()
    assert server.get("/").text == "Ollama is running"
    assert server.session.head(f"{server.url}/").status_code == 200
    assert server.get("/api/version").json()["version"].count(".") == 2


def test_list_and_show(serve: Serve, bigram_file: Path) -> None:
    server = serve()
    (row,) = server.get("/api/tags").json()["models"]
    assert (row["name"], row["model"]) == ("bigram:latest", "bigram:latest")
    assert row["details"]["format"] == "gguf" and row["details"]["quantization_level"] == "F32"
    assert datetime.fromisoformat(row["modified_at"]).year > 2000
    shown = server.post("/api/show", {"model": "bigram"}).json()
    assert shown["template"] == TEMPLATE and shown["capabilities"] == ["completion"]
    assert shown["model_info"]["llama.context_length"] == 50_000
    assert shown["model_info"]["tokenizer.ggml.tokens"] is None
    verbose = server.post("/api/show", {"name": "bigram", "verbose": True}).json()
    assert verbose["model_info"]["tokenizer.ggml.tokens"][:3] == ["<unk>", "<s>", "</s>"]


def test_a_model_of_uploaded_parts(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    data = write_bigram(tmp_path / "other.gguf", n_ctx=77).read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    blob = f"{server.url}/api/blobs/{digest}"
    assert server.session.head(blob).status_code == 404
    assert server.session.post(blob, data=data).status_code == 201
    assert server.session.head(blob).status_code == 200
    assert server.session.post(blob, data=data).status_code == 200
    parts: dict[str, Any] = {
        "model": "made",
        "files": {"other.gguf": digest},
        "parameters": {"temperature": 0, "stop": ["m"], "num_predict": 100},
        "system": "ignored by this template but for its last letter: a",
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        "license": "none",
    }
    lines = [json.loads(line) for line in server.post("/api/create", parts).iter_lines()]
    assert lines[-1] == {"status": "success"} and all("status" in line for line in lines)
    assert set(names(server)) == {"bigram:latest", "made:latest"}
    shown = server.post("/api/show", {"model": "made"}).json()
    assert shown["system"] == parts["system"] and shown["messages"] == parts["messages"]
    assert "stop" in shown["parameters"] and shown["license"] == "none"
    assert shown["model_info"]["llama.context_length"] == 77
    answer = server.chat("a", model="made", options={}).json()  # the model's own temperature and stop string
    assert answer["message"]["content"] == "bcdefghijkl"
    # what the manifest says comes before the conversation: system, x, y, a
    assert answer["prompt_eval_count"] > len(parts["system"]) + 3


def test_a_model_of_another(serve: Serve) -> None:
    server = serve()
    answer = server.post(
        "/api/create", {"model": "short", "from": "bigram", "parameters": {"num_predict": 3}, "stream": False}
    )
    assert answer.json() == {"status": "success"}
    assert server.chat("a", model="short").json()["message"]["content"] == "bcd"
    assert server.chat("a").json()["message"]["content"] == ALPHABET  # the same weights, without its parameter
    assert in_memory(server) == ["short"]  # one file, one model in memory; by the name that it was loaded under


def test_quantised_on_the_way(serve: Serve) -> None:
    server = serve()
    answer = server.post("/api/create", {"model": "small", "from": "bigram", "quantize": "q8_0", "stream": False})
    assert answer.json() == {"status": "success"}
    sizes = {model["name"]: model for model in server.get("/api/tags").json()["models"]}
    assert sizes["small:latest"]["details"]["quantization_level"] == "Q8_0"
    assert sizes["small:latest"]["size"] < sizes["bigram:latest"]["size"] / 2
    assert server.chat("a", model="small").json()["message"]["content"] == ALPHABET


def test_copy_and_delete(serve: Serve) -> None:
    server = serve()
    assert server.post("/api/copy", {"source": "bigram", "destination": "twin"}).status_code == 200
    assert set(names(server)) == {"bigram:latest", "twin:latest"}
    server.chat("a", model="twin")
    assert server.session.delete(f"{server.url}/api/delete", json={"model": "twin"}).status_code == 200
    assert names(server) == ["bigram:latest"]
    eventually(lambda: in_memory(server) == [])
    assert server.session.delete(f"{server.url}/api/delete", json={"model": "twin"}).status_code == 404
    assert server.chat("a", model="twin").status_code == 404
    assert server.chat("a").status_code == 200


def test_pull_from_nowhere_says_so_in_the_stream(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REF_ENGINE_REGISTRY", "http://127.0.0.1:9")
    server = serve()
    lines = [json.loads(line) for line in server.post("/api/pull", {"model": "some/thing"}).iter_lines()]
    assert lines[0] == {"status": "pulling manifest"} and "error" in lines[-1]


def test_push_is_refused(serve: Serve) -> None:
    answer = serve().post("/api/push", {"model": "bigram"})
    assert answer.status_code == 400 and "push is not supported" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/api/show", {}, "model"),
        ("/api/show", {"model": 5}, "model"),
        ("/api/show", {"model": "bigram", "colour": "red"}, "colour"),
        ("/api/create", {"model": "x"}, "from"),
        ("/api/create", {"model": "x", "from": "bigram", "adapters": {"a": "b"}}, "LoRA"),
        ("/api/create", {"model": "x", "from": "bigram", "parameters": {"temperatur": 1}}, "temperatur"),
        ("/api/create", {"model": "x", "from": "bigram", "parameters": {"top_k": "many"}}, "top_k"),
        ("/api/create", {"model": "x", "from": "bigram", "modelfile": "FROM y"}, "modelfile"),
        ("/api/create", {"model": "x", "from": "bigram", "quantize": "Q9", "stream": False}, "Q9"),
        ("/api/create", {"model": "x", "files": {"a.gguf": "sha256:12"}}, "digest"),
        ("/api/create", {"model": "x", "files": {"a.gguf": f"sha256:{'0' * 64}"}, "stream": False}, "no blob"),
        ("/api/create", {"model": "x", "from": "nowhere", "stream": False}, "nowhere"),
        ("/api/create", {"model": "../x", "from": "bigram"}, "name"),
        ("/api/create", {"model": "x", "from": "/etc/passwd"}, "name"),
        ("/api/copy", {"source": "bigram", "destination": "../../x"}, "name"),
        ("/api/copy", {"source": "bigram", "destination": "a b"}, "name"),
        ("/api/pull", {"model": "/etc/passwd"}, "name"),
        ("/api/pull", {"model": "x", "username": "me"}, "username"),
    ],
)
def test_what_is_wrong_is_named(serve: Serve, path: str, body: dict[str, Any], word: str) -> None:
    server = serve()
    answer = server.post(path, body)
    assert 400 <= answer.status_code < 500
    assert word in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert names(server) == ["bigram:latest"]


@pytest.mark.parametrize(
    "digest", ["sha256:00", "md5:" + "0" * 32, "sha256:" + "Z" * 64, "..%2f..%2fetc%2fpasswd", "%00"]
)
def test_digests_are_digests(serve: Serve, digest: str) -> None:
    server = serve()
    for method in ("HEAD", "POST"):
        answer = server.session.request(method, f"{server.url}/api/blobs/{digest}", data=b"x")
        assert 400 <= answer.status_code < 500


def test_a_blob_that_is_something_else(serve: Serve, store: Store) -> None:
    server = serve()
    digest = hashlib.sha256(b"right").hexdigest()
    answer = server.session.post(f"{server.url}/api/blobs/sha256:{digest}", data=b"wrong")
    assert answer.status_code == 400 and "sha256" in answer.json()["error"]
    assert not store.blobs.path(digest).exists()


# --- models in memory -------------------------------------------------------------------------------------


def test_keep_alive(serve: Serve) -> None:
    server = serve(keep_alive=0.0)
    server.chat("a")
    eventually(lambda: in_memory(server) == [])  # at once, as the server is set
    server.chat("a", keep_alive="1h")
    (model,) = server.get("/api/ps").json()["models"]
    assert model["context_length"] == 50_000 and model["size_vram"] == 0
    server.post("/api/generate", {"model": "bigram", "keep_alive": 0})
    eventually(lambda: in_memory(server) == [])
    loaded = server.post("/api/generate", {"model": "bigram", "keep_alive": -1}).json()
    assert loaded["done_reason"] == "load" and in_memory(server) == ["bigram"]
    assert [line["why"] for line in server.lines() if line["event"] == "unloaded"] == ["expired", "expired"]


def test_least_recently_used_goes_where_there_is_no_room(serve: Serve, store: Store, tmp_path: Path) -> None:
    for name in ("two", "three"):
        store.add_file(name, write_bigram(tmp_path / f"{name}.gguf", n_ctx=50_000, extra={"general.name": name}))
    one = serve()
    one.chat("a")
    need = one.server.pool.running()[0].need.total
    server = serve(memory=2 * need + need // 2)
    for name in ("bigram", "two", "bigram", "three"):
        assert server.chat("a", model=name).json()["message"]["content"] == ALPHABET
    assert in_memory(server) == ["three", "bigram"]
    assert [line["model"] for line in server.lines() if line["event"] == "unloaded"] == ["two"]


def test_a_model_that_can_never_fit_is_refused_with_the_numbers(serve: Serve) -> None:
    server = serve(memory=1 << 20)
    answer = server.chat("a")
    assert answer.status_code == 400
    numbers = r"needs \d+\.\d\d GiB of memory .* 50000 tokens in every slot.* may take 0\.00 GiB"
    assert re.search(numbers, answer.json()["error"])
    assert not [line for line in server.lines() if line["event"] == "loaded"]
