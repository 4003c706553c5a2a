"""Ollama's registry protocol against a registry on this machine, honest and hostile."""

import json
from collections.abc import Callable

import pytest
from loopback import Loopback, Recorder, Route

from ref_engine.errors import StoreError
from ref_engine.library import Store, pull
from ref_engine.library.manifest import LICENSE, MODEL, SYSTEM
from ref_engine.library.names import parse_name
from ref_engine.library.sources.registry import endpoint

Make = Callable[..., bytes]
Sha = Callable[[bytes], str]
CONFIG = b'{"model_format":"gguf","model_family":"llama","model_type":"17","file_type":"Q4_1"}'


class Registry:
    """Serves one model at `ns/m:t`. `manifest` is edited by tests before `serve`."""

    def __init__(self, server: Loopback, sha: Sha, weights: bytes) -> None:
        self.server, self.weights = server, weights
        self.url = f"{server.host}/ns/m:t"

        def blob(kind: str, data: bytes) -> dict[str, object]:
            server.routes[f"/v2/ns/m/blobs/sha256:{sha(data)}"] = Route(data, {"ETag": f'"{sha(data)[:8]}"'})
            return {"mediaType": kind, "digest": f"sha256:{sha(data)}", "size": len(data)}

        self.manifest: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": blob("application/vnd.docker.container.image.v1+json", CONFIG),
            "layers": [blob(MODEL, weights), blob(SYSTEM, b"Be brief."), blob(LICENSE, b"MIT")],
        }
        self.model_path = f"/v2/ns/m/blobs/sha256:{sha(weights)}"
        self.serve()

    def serve(self, raw: bytes | None = None) -> None:
        body = json.dumps(self.manifest).encode() if raw is None else raw
        self.server.routes["/v2/ns/m/manifests/t"] = Route(body)


@pytest.fixture
def registry(server: Loopback, sha: Sha, make_gguf: Make) -> Registry:
    return Registry(server, sha, make_gguf(200_000))


def files_of(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


def test_pull(registry: Registry, store: Store, bar: Recorder) -> None:
    entry = pull(registry.url, store, bar)
    assert entry.name == "ns/m:t" and entry.facts.parameters == "17"
    assert store.resolve("ns/m:t").read_bytes() == registry.weights == store.resolve(registry.url).read_bytes()
    assert store.show("ns/m:t").system == "Be brief."
    raw = (store.root / "manifests" / registry.server.host / "ns" / "m" / "t").read_bytes()
    assert raw == registry.server.routes["/v2/ns/m/manifests/t"].body  # kept byte for byte, so the digest holds
    model = [step for step in bar.steps if step[0] == "m:t model"]
    assert model == [["m:t model", len(registry.weights), len(registry.weights)]]
    assert registry.server.log[0].headers["accept"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert not any(name.startswith("downloads/") for name in files_of(store))


def test_pull_again_asks_for_the_manifest_only(registry: Registry, store: Store) -> None:
    pull(registry.url, store)
    del registry.server.log[:]
    pull(registry.url, store)
    assert [asked.path for asked in registry.server.log] == ["/v2/ns/m/manifests/t"]


def test_a_broken_pull_resumes(registry: Registry, store: Store) -> None:
    route = registry.server.routes[registry.model_path]
    route.drops = [70_000, 0, 0, 0, 0, 0, 0]
    with pytest.raises(StoreError, match="next one resumes"):
        pull(registry.url, store)
    assert store.list() == []
    route.drops = []
    pull(registry.url, store)
    assert registry.server.sent(registry.model_path) == len(registry.weights)
    assert store.resolve("ns/m:t").read_bytes() == registry.weights


def test_the_registry_comes_from_option_or_environment(
    registry: Registry, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"no built-in model \(smollm2, .*REF_ENGINE_REGISTRY"):
        pull("ns/m:t", store)
    pull("ns/m:t", store, registry=registry.server.url)
    store.remove("ns/m:t")
    monkeypatch.setenv("REF_ENGINE_REGISTRY", registry.server.host)
    assert pull("ns/m:t", store, rename="mine").name == "mine:latest"
    assert [entry.name for entry in store.list()] == ["mine:latest"]


def test_where_a_name_is_asked_for() -> None:
    assert endpoint(parse_name("h.example/n/m"), None, False) == "https://h.example"
    assert endpoint(parse_name("h.example:5000/n/m"), "other", False) == "https://h.example:5000"
    assert endpoint(parse_name("n/m"), "h.example", False) == "https://h.example"
    assert endpoint(parse_name("localhost:5000/n/m"), None, False) == "http://localhost:5000"
    assert endpoint(parse_name("h.example/n/m"), None, True) == "http://h.example"
    for bad in ("http://h.example", "https://h.example/path", "https://u:p@h.example", "file:///x", "https://h/?q"):
        with pytest.raises(StoreError):
            endpoint(parse_name("n/m"), bad, False)


def test_blobs_may_be_on_another_server(registry: Registry, store: Store) -> None:
    body = registry.server.routes[registry.model_path].body
    other = Loopback()
    try:
        other.routes["/cdn"] = Route(body)
        registry.server.routes[registry.model_path] = Route(
            headers={"Location": other.url + "/cdn?sig=1"}, statuses=[307] * 9
        )
        pull(registry.url, store)
        assert store.resolve("ns/m:t").read_bytes() == registry.weights and other.sent("/cdn") == len(body)
    finally:
        other.close()


def test_a_token_is_fetched_and_renewed(registry: Registry, store: Store) -> None:
    """The token runs out between manifest and blobs, so two are fetched."""
    server, valid = registry.server, ["first"]

    def check(headers: dict[str, str]) -> int | None:
        return None if headers.get("authorization") == f"Bearer {valid[-1]}" else 401

    challenge = {"WWW-Authenticate": f'Bearer realm="{server.url}/token",service="reg",scope="repository:ns/m:pull"'}
    for path, route in server.routes.items():
        route.check = check
        route.headers.update(challenge)
        if "manifests" in path:
            route.headers["X"] = "1"
    server.routes["/token"] = Route(json.dumps({"token": "first"}).encode())

    class Renew(Route):
        """The manifest: once it was served, the registry wants the second token."""

    def check_manifest(headers: dict[str, str]) -> int | None:
        refused = check(headers)
        if refused is None:
            valid.append("second")
            server.routes["/token"].body = json.dumps({"access_token": "second"}).encode()
        return refused

    server.routes["/v2/ns/m/manifests/t"].check = check_manifest
    pull(registry.url, store)
    assert store.resolve("ns/m:t").read_bytes() == registry.weights
    tokens = [asked for asked in server.log if asked.path.startswith("/token")]
    assert [asked.path for asked in tokens] == ["/token?service=reg&scope=repository%3Ans%2Fm%3Apull"] * 2
    assert all("authorization" not in asked.headers for asked in tokens)


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Basic realm=x",
        'Bearer realm="file:///etc/passwd"',
        'Bearer realm="http://example.invalid/token"',
        'Bearer realm="http://127.0.0.1:9/token"',
        'Bearer service="x"',
        'Bearer realm="' + "x" * 100_00 + '"',
        "Bearer " + 'a="b",' * 5000,
    ],
)
def test_bearer_tricks(registry: Registry, store: Store, challenge: str) -> None:
    registry.server.routes["/v2/ns/m/manifests/t"] = Route(headers={"WWW-Authenticate": challenge}, statuses=[401] * 9)
    with pytest.raises(StoreError) as caught:
        pull(registry.url, store)
    assert len(registry.server.log) == 1 and files_of(store) == [] and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"token": 5}', b'{"token": "a\\r\\nX: y"}', b'{"token": ""}', b" " * (1 << 19)]
)
def test_bad_tokens(registry: Registry, store: Store, body: bytes) -> None:
    server = registry.server
    realm = {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}
    server.routes["/v2/ns/m/manifests/t"] = Route(headers=realm, statuses=[401] * 9)
    server.routes["/token"] = Route(body)
    with pytest.raises(StoreError, match="/token"):
        pull(registry.url, store)


def _edit(**changes: object) -> Callable[[dict[str, object]], None]:
    return lambda manifest: manifest["layers"][0].update(changes)  # type: ignore[index]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_edit(digest="sha256:../../../../etc/passwd"), "layer 0: not a sha256 digest"),
        (_edit(digest="sha256:" + "0" * 64), "HTTP 404"),
        (_edit(size=5), "bytes declared, expected 5"),
        (_edit(size=-5), "layer 0: not a size"),
        (_edit(size=1 << 62), "layer 0: not a size"),
        (_edit(size=1 << 43), "not enough room|declared"),
        (_edit(mediaType="application/vnd.ollama.image.tensor"), "0 GGUF model layers"),
        (_edit(mediaType="application/vnd.ollama.image.template", size=1 << 30), "0 GGUF model layers"),
        (lambda manifest: manifest["layers"][1].update(size=1 << 30), "bytes of application/vnd.ollama.image.system"),
        (lambda manifest: manifest["layers"].append(manifest["layers"][0]), "2 GGUF model layers"),
        (lambda manifest: manifest.update(layers=[manifest["layers"][0]] * 300), "1 to 256 layers"),
        (lambda manifest: manifest.update(schemaVersion=1), "not a version 2 manifest"),
        (lambda manifest: manifest.pop("config"), "config: not an object"),
        (lambda manifest: manifest.update(padding="x" * (2 << 20)), "more than 1048576 bytes"),
    ],
)
def test_hostile_manifests(
    registry: Registry, store: Store, edit: Callable[[dict[str, object]], None], message: str
) -> None:
    edit(registry.manifest)
    registry.serve()
    with pytest.raises(StoreError, match=message) as caught:
        pull(registry.url, store)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert store.list() == [] and not [name for name in files_of(store) if name.startswith("manifests")]


@pytest.mark.parametrize("raw", [b"", b"[" * 100_000, b"<html>", b"\xff\xfe", b'"x"', b"1" * 10_000])
def test_what_is_no_manifest(registry: Registry, store: Store, raw: bytes) -> None:
    registry.serve(raw)
    with pytest.raises(StoreError, match="manifests/t: not"):
        pull(registry.url, store)


def test_wrong_bytes_are_refused(registry: Registry, store: Store) -> None:
    route = registry.server.routes[registry.model_path]
    route.body = route.body[:-1] + b"!"
    with pytest.raises(StoreError, match="its sha256 is"):
        pull(registry.url, store)
    assert store.list() == [] and not [name for name in files_of(store) if "partial" in name]


def test_a_model_layer_that_is_not_gguf(server: Loopback, sha: Sha, store: Store) -> None:
    other = Registry(server, sha, b"PK\x03\x04 something else")
    with pytest.raises(StoreError, match="not a GGUF file"):
        pull(other.url, store)
    assert store.list() == [] and not any(name.startswith("blobs/") for name in files_of(store))


def test_an_unknown_model(registry: Registry, store: Store) -> None:
    with pytest.raises(StoreError, match="ns/other:latest: the registry has no such model"):
        pull(f"{registry.server.host}/ns/other", store)
