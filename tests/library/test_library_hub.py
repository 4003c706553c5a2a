"""A model hub on loopback, reached through HF_ENDPOINT."""

import builtins
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from loopback import Loopback, Recorder, Route

from ref_engine.errors import StoreError
from ref_engine.library import Store, pull
from ref_engine.library.sources.hub import HubFile, choose, parse_spec

pytest.importorskip("huggingface_hub", reason="the extra `hf` is not installed")

COMMIT = "c" * 40


class Hub:
    """Serves `owner/repo-GGUF` with these files."""

    def __init__(self, server: Loopback, files: dict[str, bytes]) -> None:
        self.server = server
        self.siblings: list[dict[str, Any]] = [{"rfilename": "README.md", "size": 5}]
        for path, data in files.items():
            lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            self.siblings.append({"rfilename": path, "size": len(data), "lfs": lfs})
            server.routes[self.path(path)] = Route(data, {"ETag": f'"{lfs["sha256"]}"'})
        self.serve()

    def path(self, file: str) -> str:
        return f"/owner/repo-GGUF/resolve/{COMMIT}/{file}"

    def serve(self) -> None:
        body = {"id": "owner/repo-GGUF", "sha": COMMIT, "siblings": self.siblings}
        self.server.routes["/api/models/owner/repo-GGUF"] = Route(json.dumps(body).encode())


@pytest.fixture
def hub(server: Loopback, make_gguf: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    names = ("m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0.gguf", "BF16/m-BF16.gguf", "mmproj-Q4_K_M.gguf")
    return Hub(server, {name: make_gguf(1000, name=name) for name in names})


def body_of(hub: Hub, file: str) -> bytes:
    return hub.server.routes[hub.path(file)].body


def test_a_file_by_path(hub: Hub, store: Store, bar: Recorder) -> None:
    spec = "hf:owner/repo-GGUF/BF16/m-BF16.gguf"
    entry = pull(spec, store, bar)
    assert entry.name == "hf:owner/repo-GGUF:BF16-m-BF16"
    assert (
        store.resolve(spec).read_bytes() == body_of(hub, "BF16/m-BF16.gguf") == store.resolve(entry.name).read_bytes()
    )
    assert hub.server.sent(hub.path("BF16/m-BF16.gguf")) == len(body_of(hub, "BF16/m-BF16.gguf"))
    assert bar.steps[0][0] == "m-BF16.gguf"


@pytest.mark.parametrize(
    ("spec", "file"),
    [
        ("hf:owner/repo-GGUF:q8_0", "m-Q8_0.gguf"),
        ("hf:owner/repo-GGUF:Q4_K_S", "m-Q4_K_S.gguf"),
        ("hf:owner/repo-GGUF", "m-Q4_K_M.gguf"),
    ],
)
def test_a_file_by_quantisation(hub: Hub, store: Store, spec: str, file: str) -> None:
    pull(spec, store)
    assert store.resolve(spec).read_bytes() == body_of(hub, file)


def test_the_token_goes_to_the_hub_and_not_to_its_storage(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    storage, path = Loopback(), hub.path("m-Q8_0.gguf")
    try:
        storage.routes["/blob"] = Route(body_of(hub, "m-Q8_0.gguf"))
        hub.server.routes[path] = Route(headers={"Location": storage.url + "/blob"}, statuses=[302] * 9)
        pull("hf:owner/repo-GGUF:Q8_0", store)
        assert [asked.headers.get("authorization") for asked in hub.server.log] == ["Bearer hf_secret"] * 2
        assert [asked.headers.get("authorization") for asked in storage.log] == [None]
    finally:
        storage.close()


def test_a_broken_download_resumes(hub: Hub, store: Store) -> None:
    path = hub.path("m-Q8_0.gguf")
    hub.server.routes[path].drops = [500]
    pull("hf:owner/repo-GGUF:Q8_0", store)
    assert hub.server.sent(path) == len(body_of(hub, "m-Q8_0.gguf"))
    pull("hf:owner/repo-GGUF/m-Q8_0.gguf", store, rename="again")
    assert hub.server.sent(path) == len(body_of(hub, "m-Q8_0.gguf"))  # the blob was there


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:owner/repo-GGUF:Q4_K", "0 files match 'Q4_K'; it has: m-Q4_K_M.gguf"),
        ("hf:owner/repo-GGUF/m-Q9.gguf", "no file 'm-Q9.gguf'; did you mean"),
        ("hf:owner/none", "the hub has no such repository"),
        ("hf:owner", "expected hf:OWNER/REPO"),
        ("hf:../../x", "expected hf:OWNER/REPO"),
        ("hf:owner/repo/../x.gguf", "expected hf:OWNER/REPO"),
        ("hf:owner/repo/README.md", "expected hf:OWNER/REPO"),
    ],
)
def test_what_is_not_there(hub: Hub, store: Store, spec: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        pull(spec, store)
    assert store.list() == []


def test_wrong_bytes_and_wrong_answers(hub: Hub, store: Store) -> None:
    hub.server.routes[hub.path("m-Q8_0.gguf")].body = body_of(hub, "m-Q8_0.gguf")[:-1] + b"!"
    with pytest.raises(StoreError, match="its sha256 is"):
        pull("hf:owner/repo-GGUF:Q8_0", store)
    for sibling in hub.siblings[1:]:
        sibling["lfs"] = {"sha256": "../../x", "size": 5}
    hub.serve()
    with pytest.raises(StoreError, match="it has: no GGUF files"):
        pull("hf:owner/repo-GGUF:Q8_0", store)
    for bad in (b"", b"[]", b"{}", b'{"siblings": [], "sha": "../.."}'):
        hub.server.routes["/api/models/owner/repo-GGUF"].body = bad
        with pytest.raises(StoreError, match="/api/models/owner/repo-GGUF: not"):
            pull("hf:owner/repo-GGUF:Q8_0", store)


def test_which_file_is_meant() -> None:
    def files(*paths: str) -> list[HubFile]:
        return [HubFile(path, 1, "0" * 64) for path in paths]

    assert choose(files("only.gguf", "mmproj-f16.gguf"), None, None, "r").path == "only.gguf"
    assert choose(files("a.Q4_0.gguf", "a.Q4_1.gguf"), None, "q4_1", "r").path == "a.Q4_1.gguf"
    assert choose(files("Q4_0/a.gguf", "Q8_0/a.gguf"), None, "Q8_0", "r").path == "Q8_0/a.gguf"
    for bad, message in [
        (files("a-Q4_0.gguf", "b-Q4_0.gguf"), "2 files match"),
        (files("a-Q4_0-00001-of-00002.gguf", "a-Q4_0-00002-of-00002.gguf"), "is split"),
        ([], "no GGUF files"),
    ]:
        with pytest.raises(StoreError, match=message):
            choose(bad, None, "Q4_0", "r")


def test_specs() -> None:
    assert parse_spec("hf:o/r") == ("o/r", None, None)
    assert parse_spec("hf:o/r:Q4_0") == ("o/r", None, "Q4_0")
    assert parse_spec("hf:o/r/d/f.gguf") == ("o/r", "d/f.gguf", None)


def test_without_the_package(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(StoreError, match=r"needs the extra `hf`: pip install 'ref-engine\[hf\]'"):
        pull("hf:o/r", store)
