"""/api/lens on a socket: what it says, what it refuses, and that nobody else notices."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from running import ALPHABET, Running, eventually

from ref_engine.library import Store
from ref_engine.views import Shape, Steps
from ref_engine_app.errors import ApiError
from ref_engine_app.lens.incoming import ENDPOINTS, MAX_NUMBERS, MAX_TOKENS
from ref_engine_app.lens.looking import Looking, Seen
from ref_engine_app.lens.outgoing import lens_positions, number, token

Serve = Callable[..., Running]
VIEWS = [name for name in ENDPOINTS if name != "generate"]


@pytest.fixture
def server(serve: Serve, store: Store, golden: Path) -> Running:
    store.add_file("moe", golden / "models" / "tiny-moe.gguf")
    return serve(n_ctx=2048)


def lens(server: Running, view: str, model: str = "bigram", **body: Any) -> Any:
    answer = server.post(f"/api/lens/{view}", {"model": model, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


# --- what it says -----------------------------------------------------------------------------------------


def test_a_model_that_knows_one_text(server: Running) -> None:
    """It says the next letter of the alphabet: rank 1 for that, and not for another one."""
    answer = lens(server, "tokens", prompt="abcz", top=1)
    bos, _, b, c, z = answer["tokens"]
    assert (bos["logprob"], bos["rank"], bos["entropy"], bos["top"]) == (None, None, None, None)
    assert (b["text"], b["rank"], b["top"][0]["text"]) == ("b", 1, "b") and c["rank"] == 1 < z["rank"]
    assert b["logprob"] == b["top"][0]["logprob"] > -0.01 and 0 <= b["entropy"] < 0.1
    part = lens(server, "tokens", prompt="abcz", top=1, start=2, stop=4)
    assert part["tokens"] == [b, c] and part["next"]["top"][0]["text"] == "d"
    rows = lens(server, "layers", prompt="abcz", top=1)["cells"]
    assert [cell["top"][0]["text"] for cell in rows[-1][1:4]] == ["b", "c", "d"] and rows[-1][4]["rank"] is None


def test_experts_and_the_shape_that_tells_of_them(server: Running) -> None:
    shape, dense = lens(server, "shape", model="moe"), lens(server, "shape")
    assert (shape["n_experts"], shape["n_used"], shape["has_experts"]) == (8, 2, [0, 1, 2, 3])
    assert (shape["n_heads"], shape["n_vocab"], shape["causal"]) == ([6] * 4, 2048, True)
    assert dense["n_experts"] == 0 and dense["has_experts"] == []
    answer = lens(server, "experts", model="moe", prompt="def add(a, b):")
    n = len(answer["tokens"])
    for layer in answer["layers"]:
        assert [len(ids) for ids in layer["ids"]] == [2] * n and sum(layer["load"]) == 2 * n
        assert all(sum(weights) == pytest.approx(1, abs=1e-3) for weights in layer["weights"])  # as it normalises them
        assert all(0 <= entropy <= math.log(8) for entropy in layer["entropy"])
    refused = server.post("/api/lens/experts", {"model": "bigram", "prompt": "a"})
    assert (refused.status_code, refused.json()) == (400, {"error": "model bigram has no experts"})


def test_maps_are_shares_and_get_smaller(server: Running) -> None:
    text = "the king " * 60
    whole = lens(server, "attention", model="moe", prompt=text, layer=1, head=2, size=512)
    n = len(whole["tokens"])
    assert not whole["downsampled"] and whole["q"] == whole["k"] == list(range(n)) and whole["heads"] == [2]
    assert all(sum(row) == pytest.approx(1, abs=0.01) for row in whole["maps"][0])
    small = lens(server, "attention", model="moe", prompt=text, layer=1, size=10)
    assert small["downsampled"] and small["how"] == "max" and len(small["maps"]) == small["n_heads"] == 6
    edges = [*small["q"], n]
    rows = whole["maps"][0]
    for i, row in enumerate(small["maps"][2]):
        for j, value in enumerate(row):
            square = [max(rows[q][edges[j] : edges[j + 1]]) for q in range(edges[i], edges[i + 1])]
            assert value == max(square)


def test_times_norms_and_memory(server: Running) -> None:
    times = lens(server, "times", model="moe", prompt="def add", repeat=2)
    assert sum(op["share"] for op in times["operations"]) == pytest.approx(1, abs=0.01)
    assert {"moe_ffn", "attend", "linears"} <= {op["name"] for op in times["operations"]}
    assert lens(server, "times", model="moe", prompt="def add", phase="token")["tokens"] == 1
    norms = lens(server, "norms", model="moe", prompt="def add")
    assert norms["layers"] == [0, 1, 2, 3] and {"attn_out", "ffn_out", "l_out"} <= set(norms["names"])
    assert all(len(row) == len(norms["tokens"]) for row in norms["values"]["l_out"])
    memory = lens(server, "memory", model="moe")
    assert memory["total"] == sum(part["bytes"] for part in memory["parts"])
    # 2 slots of 2048 tokens, 4 layers, keys and values of 2 heads of 32 numbers of 2 bytes
    assert {"name": "keys and values", "kind": "caches", "bytes": 2 * 2048 * 4 * 2 * 64 * 2} in memory["parts"]


def test_three_ways_to_give_a_text(server: Running) -> None:
    ids = [t["id"] for t in lens(server, "tokens", prompt="abc")["tokens"]]
    assert lens(server, "tokens", tokens=ids) == lens(server, "tokens", prompt="abc")
    user = [{"role": "user", "content": "abc"}]
    assert lens(server, "tokens", messages=user) == lens(server, "tokens", prompt="abc", raw=False)


def test_going_on_from_exactly_these_tokens(server: Running) -> None:
    ids = [t["id"] for t in lens(server, "tokens", prompt="ax")["tokens"]]
    *ids, x = ids
    for given, rest in (([*ids, x], "yz"), (ids, ALPHABET)):
        answer = server.post("/api/lens/generate", {"model": "bigram", "tokens": given, "top": 2}, stream=True)
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        *tokens, end = [json.loads(line) for line in answer.iter_lines()]
        assert "".join(t["text"] for t in tokens) == rest
        assert "".join(t["delta"] for t in tokens) + end["delta"] == rest
        assert all(len(t["top"]) == 2 and t["top"][0]["id"] == t["id"] for t in tokens)
        assert (end["done"], end["reason"], end["tokens"]) == (True, "stop", len(rest))
    two = server.post("/api/lens/generate", {"model": "bigram", "tokens": ids, "max_tokens": 2})
    assert json.loads(two.text.splitlines()[-1])["reason"] == "length"


def test_numbers_that_json_has_not() -> None:
    assert number(-math.inf) is None and number(math.nan) is None and number(0.123456) == 0.1235

    class Bytes:
        n_vocab = 2

        def token_bytes(self, id: int) -> bytes:
            return b"\xe2\x82"  # of a euro sign

    tokenizer: Any = Bytes()
    assert token(tokenizer, 0) == {"id": 0, "text": "�", "bytes": [0xE2, 0x82]}
    assert token(tokenizer, 7) == {"id": 7, "text": ""}


# --- what it refuses --------------------------------------------------------------------------------------

TEXT = {"model": "moe", "prompt": "def add"}
WRONG: list[tuple[str, Any, str]] = [
    ("tokens", [], "must be an object"),
    ("tokens", {"model": "moe"}, "give one of tokens, prompt and messages, not none"),
    ("tokens", {**TEXT, "tokens": [1]}, "not tokens and prompt"),
    ("tokens", {"model": "moe", "tokens": []}, "tokens: must have"),
    ("tokens", {"model": "moe", "tokens": [2048]}, "token 2048 is outside the vocabulary"),
    ("tokens", {"model": "moe", "tokens": [-1]}, "tokens.0: must be from 0"),
    ("tokens", {"model": "moe", "tokens": [1.5]}, "tokens.0: must be an integer"),
    ("tokens", {"model": "moe", "tokens": [1] * (MAX_TOKENS + 1)}, "has 1025 tokens, the limit is 1024"),
    ("tokens", {"model": "moe", "tokens": [1] * 100_001}, "must have"),
    ("tokens", {**TEXT, "top": 21}, "top: must be 0 to 20"),
    ("tokens", {**TEXT, "top": "5"}, "top: must be an integer"),
    ("tokens", {**TEXT, "start": 2, "stop": 1}, "positions 2 to 1 are not within"),
    ("tokens", {**TEXT, "stop": 10**9}, "are not within"),
    ("tokens", {**TEXT, "layer": 1}, "layer: no such field"),
    ("tokens", {"model": "moe", "messages": [{"role": "tool", "content": ""}]}, "messages.0.role: must be one of"),
    ("tokens", {"model": "../moe", "prompt": "a"}, "is not a model name"),
    ("layers", {**TEXT, "top": 0}, "top: must be 1 to 10"),
    ("attention", TEXT, "layer: is required"),
    ("attention", {**TEXT, "layer": 4}, "there is no layer 4: this model has 4"),
    ("attention", {**TEXT, "layer": 2**31 - 1}, "there is no layer"),
    ("attention", {**TEXT, "layer": 0, "head": 6}, "there is no head 6: layer 0 has 6"),
    ("attention", {**TEXT, "layer": 0, "size": 0}, "size: must be 1 to 512"),
    ("norms", {**TEXT, "names": ["l_out*"]}, "names.0: must match"),
    ("norms", {**TEXT, "names": ["nothing"]}, "has a value called nothing"),
    ("times", {**TEXT, "repeat": 11}, "repeat: must be 1 to 10"),
    ("times", {"model": "moe", "tokens": [1], "phase": "token"}, "two tokens at least"),
    ("generate", {"model": "moe", "tokens": [2048]}, "outside the vocabulary"),
    ("generate", {"model": "moe", "tokens": [1], "max_tokens": 0}, "max_tokens: must be"),
    ("generate", {"model": "moe", "tokens": [1], "temperature": -1}, "temperature: must be"),
]  # fmt: skip


def test_hostile_requests_are_refused_by_name(server: Running) -> None:
    for view, body, message in WRONG:
        answer = server.post(f"/api/lens/{view}", body)
        assert (answer.status_code, message in answer.json()["error"]) == (400, True), (
            view,
            str(body)[:80],
            answer.text,
        )
    for view in ENDPOINTS:
        for data in (b"", b"{", b"\xff", b"[" * 100_000, b'{"model": "\\ud800"}', b'{"model": 1e999}'):
            assert server.session.post(f"{server.url}/api/lens/{view}", data=data, timeout=60).status_code == 400
        assert server.get(f"/api/lens/{view}").status_code == 405
        missing = {"model": "nobody", "tokens": [1], **({"layer": 0} if view == "attention" else {})}
        assert server.post(f"/api/lens/{view}", missing).status_code == 404
    for view in ("nothing", "%2e%2e", "tokens/more"):
        assert server.post(f"/api/lens/{view}", TEXT).status_code == 404


def test_limits_of_answers_are_named() -> None:
    seen = Seen("moe", None, None, (), 0, 0)  # type: ignore[arg-type]
    seen.room_for(MAX_NUMBERS)
    with pytest.raises(ApiError, match="would have 200001 numbers, the limit is 200000: ask for fewer positions"):
        seen.room_for(MAX_NUMBERS + 1)
    smollm2 = Shape("llama-like", 30, 576, (9,) * 30, (0,) * 30, (0,) * 30, 49152, 8192, True)
    assert lens_positions(smollm2) == 400_000_000 // (31 * 49152) == 262


def test_guarded_as_every_address(serve: Serve) -> None:
    server = serve(api_key="secret")
    body = {"model": "bigram", "prompt": "ab"}
    assert server.post("/api/lens/tokens", body).status_code == 401
    key = {"Authorization": "Bearer secret"}
    assert server.post("/api/lens/tokens", body, headers=key).status_code == 200
    assert server.post("/api/lens/tokens", body, headers={**key, "Origin": "http://evil.example"}).status_code == 403
    assert server.post("/api/lens/tokens", body, headers={**key, "Host": "evil.example"}).status_code == 403


# --- nobody else notices ----------------------------------------------------------------------------------


def test_a_stream_says_the_same_while_others_look(server: Running) -> None:
    body = {"model": "moe", "prompt": "def add(a, b):", "raw": True, "options": {"temperature": 0, "num_predict": 200}}
    alone = server.post("/api/generate", {**body, "stream": False}).json()["response"]
    looks: list[int] = []
    failed: list[str] = []

    def look() -> None:
        with requests.Session() as session:
            session.trust_env = False
            for view in ("attention", "layers", "experts", "times", "norms", "tokens"):
                more = {"layer": 2} if view == "attention" else {}
                url = f"{server.url}/api/lens/{view}"
                answer = session.post(
                    url, json={"model": "moe", "prompt": "And the king said " * 8, **more}, timeout=120
                )
                if answer.status_code != 200:
                    failed.append(answer.text)
                looks.append(len(answer.content))

    thread = threading.Thread(target=look)
    thread.start()
    texts = []
    while thread.is_alive() or not texts:
        texts.append(server.post("/api/generate", {**body, "stream": False}).json()["response"])
    thread.join()
    assert failed == [] and len(looks) == 6
    assert set(texts) == {alone} and len(alone) > 100
    page = server.get("/metrics").text
    assert 'ref_engine_lens_seconds_count{view="attention"} 1' in page
    assert any(line["event"] == "request" and line["path"] == "/api/lens/times" for line in server.lines())


def test_looks_wait_for_each_other_and_end_with_their_clients(server: Running) -> None:
    lens(server, "shape", model="moe")
    lease = server.server.pool.lease("moe", server.server.library.find("moe").path)
    looking = Looking(server.server.library, server.server.pool, server.server.metrics, server.server.log)
    seen = Seen("moe", lease, None, (), 0, 0)  # type: ignore[arg-type]
    taken: list[int] = []
    left = threading.Event()
    closed = threading.Event()

    def endless() -> Steps[int]:
        try:
            while True:
                taken.append(1)
                yield
        finally:
            closed.set()

    def waits() -> Steps[str]:
        yield
        return "seen"

    found: list[Any] = []

    def first() -> None:
        try:
            looking.run(seen, endless(), left.is_set)
        except ApiError as error:
            found.append(error.kind)

    one = threading.Thread(target=first)
    one.start()
    eventually(lambda: len(taken) > 3)
    with pytest.raises(ApiError, match="the client has left"):
        looking.run(seen, waits(), lambda: True)  # somebody else, who does not wait for its turn
    second = threading.Thread(target=lambda: found.append(looking.run(seen, waits(), lambda: False)))
    second.start()
    left.set()
    one.join(60)
    second.join(60)
    assert sorted(found) == ["seen", "timeout"] and closed.is_set()
    lease.release()
