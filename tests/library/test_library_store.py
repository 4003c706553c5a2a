"""The store against a directory laid out by hand as Ollama lays it out."""

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ref_engine.errors import StoreError
from ref_engine.library import Facts, Store, default_root, ollama_roots
from ref_engine.library.facts import human_count

Make = Callable[..., bytes]
Sha = Callable[[bytes], str]
OLLAMA = "application/vnd.ollama.image."


@pytest.fixture
def ollama(tmp_path: Path, make_gguf: Make, sha: Sha) -> Path:
    """Two models that share a GGUF blob, as Ollama writes them: `tiny:latest` with all text layers, `user/tiny:v2`."""
    root = tmp_path / "ollama" / "models"
    (root / "blobs").mkdir(parents=True)

    def blob(kind: str, data: bytes) -> dict[str, object]:
        (root / "blobs" / f"sha256-{sha(data)}").write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{sha(data)}", "size": len(data)}

    def model(path: str, layers: list[dict[str, object]], config: dict[str, object]) -> None:
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": blob("application/vnd.docker.container.image.v1+json", json.dumps(config).encode()),
            "layers": layers,
        }
        file = root / "manifests" / path
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(manifest))

    weights = blob(OLLAMA + "model", make_gguf())
    texts = [
        blob(OLLAMA + "template", b"{{ .Prompt }}"),
        blob(OLLAMA + "system", b"Be brief."),
        blob(OLLAMA + "params", b'{"temperature":0.5,"stop":["<end>"]}'),
        blob(OLLAMA + "license", b"Licence one"),
        blob(OLLAMA + "license", b"Licence two"),
        blob(OLLAMA + "messages", b'[{"role":"user","content":"hi"}]'),
    ]
    facts = {"model_format": "gguf", "model_family": "llama", "model_type": "134.52M", "file_type": "F16"}
    model("registry.example/library/tiny/latest", [weights, *texts], facts)
    model("registry.example/user/tiny/v2", [weights], {"model_format": "gguf"})
    return root


def test_an_ollama_directory_is_used_as_it_is(ollama: Path, make_gguf: Make, sha: Sha) -> None:
    store = Store(ollama)
    path = store.resolve("tiny")
    assert path == ollama / "blobs" / f"sha256-{sha(make_gguf())}"
    assert store.resolve("Registry.Example/library/TINY:Latest") == path == store.resolve("user/tiny:v2")
    rows = {entry.name: entry for entry in store.list()}
    assert sorted(rows) == ["tiny:latest", "user/tiny:v2"]
    assert rows["tiny:latest"].facts == Facts("llama", "134.52M", "F16")  # what the config says
    assert rows["user/tiny:v2"].facts == Facts("llama", "17", "Q4_1")  # what the header says: 3 * 4 + 5 weights
    manifest = ollama / "manifests" / "registry.example" / "library" / "tiny" / "latest"
    assert rows["tiny:latest"].digest == sha(manifest.read_bytes())
    layers = json.loads(manifest.read_text())
    assert rows["tiny:latest"].size == sum(layer["size"] for layer in [layers["config"], *layers["layers"]])


def test_show_reads_every_text_layer(ollama: Path) -> None:
    info = Store(ollama).show("tiny")
    assert (info.template, info.system) == ("{{ .Prompt }}", "Be brief.")
    assert info.parameters == {"temperature": 0.5, "stop": ["<end>"]}
    assert info.licenses == ("Licence one", "Licence two")
    assert info.messages == ({"role": "user", "content": "hi"},)
    assert info.metadata["tokenizer.chat_template"] == "{{ messages }}"
    bare = Store(ollama).show("user/tiny:v2")
    assert (bare.template, bare.system, bare.parameters, bare.licenses) == (None, None, {}, ())


def test_show_of_a_path(tmp_path: Path, store: Store, make_gguf: Make) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(make_gguf())
    info = store.show(str(path))
    assert info.facts == Facts("llama", "17", "Q4_1") and info.size == len(make_gguf())


def test_remove_keeps_blobs_that_others_use(ollama: Path, make_gguf: Make, sha: Sha) -> None:
    store = Store(ollama)
    store.remove("tiny")
    assert [entry.name for entry in store.list()] == ["user/tiny:v2"]
    left = {path.name for path in (ollama / "blobs").iterdir()}
    assert len(left) == 2 and f"sha256-{sha(make_gguf())}" in left  # the GGUF file and the other config
    assert not (ollama / "manifests" / "registry.example" / "library").exists()
    store.remove("user/tiny:v2")
    assert list((ollama / "blobs").iterdir()) == [] and list((ollama / "manifests").iterdir()) == []
    with pytest.raises(StoreError, match="no model 'tiny'"):
        store.remove("tiny")


def test_remove_spares_what_a_damaged_manifest_mentions(ollama: Path, make_gguf: Make, sha: Sha) -> None:
    other = ollama / "manifests" / "registry.example" / "user" / "tiny" / "v2"
    other.write_text(other.read_text()[:-1])  # no longer JSON
    store = Store(ollama)
    store.remove("tiny")
    assert (ollama / "blobs" / f"sha256-{sha(make_gguf())}").exists()
    assert store.list() == []
    with pytest.raises(StoreError, match="not JSON"):
        store.resolve("user/tiny:v2")
    store.remove("user/tiny:v2")  # and it can be got rid of
    assert not (ollama / "blobs" / f"sha256-{sha(make_gguf())}").exists()


def test_a_read_only_directory_is_looked_up_second_and_never_written(
    ollama: Path, tmp_path: Path, make_gguf: Make
) -> None:
    before = sorted(path for path in ollama.rglob("*"))
    store = Store(tmp_path / "own", read_only=[ollama])
    assert store.resolve("tiny").is_relative_to(ollama)
    assert {entry.name: entry.read_only for entry in store.list()} == {"tiny:latest": True, "user/tiny:v2": True}
    with pytest.raises(StoreError, match="only read"):
        store.remove("tiny")
    store.copy("tiny", "mine")
    assert store.resolve("mine").read_bytes() == make_gguf() and store.resolve("mine").is_relative_to(store.root)
    assert store.show("mine").system == "Be brief."
    store.add_file("tiny", io.BytesIO(make_gguf(x="other")))
    assert store.resolve("tiny").is_relative_to(store.root)
    assert sorted(path for path in ollama.rglob("*")) == before


def test_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ollama: Path) -> None:
    assert default_root() == tmp_path / "default" and ollama_roots() == ()
    monkeypatch.setenv("OLLAMA_MODELS", str(ollama))
    assert Store().read_only == (ollama,) == Store(default_root()).read_only
    assert Store(tmp_path / "elsewhere").read_only == ()
    monkeypatch.setenv("REF_ENGINE_MODELS", str(ollama))
    assert Store().root == ollama and Store().read_only == ()
    monkeypatch.delenv("REF_ENGINE_MODELS")
    assert default_root() == Path.home() / ".ref-engine" / "models"


def test_what_we_write_is_what_ollama_reads(store: Store, make_gguf: Make, sha: Sha, tmp_path: Path) -> None:
    source = tmp_path / "file.gguf"
    source.write_bytes(make_gguf())
    entry = store.add_file("me/tiny:v1", source)
    assert entry.name == "me/tiny:v1" and entry.facts == Facts("llama", "17", "Q4_1")
    manifest = json.loads((store.root / "manifests" / "local" / "me" / "tiny" / "v1").read_text())
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    digest = f"sha256:{sha(make_gguf())}"
    assert manifest["layers"] == [{"mediaType": OLLAMA + "model", "digest": digest, "size": len(make_gguf())}]
    for layer in [manifest["config"], *manifest["layers"]]:
        blob = (store.root / "blobs" / layer["digest"].replace(":", "-")).read_bytes()
        assert (sha(blob), len(blob)) == (layer["digest"][7:], layer["size"])
        config = blob if layer is manifest["config"] else b""
        if config:
            fields = json.loads(config)
            assert (fields["model_format"], fields["model_family"], fields["file_type"]) == ("gguf", "llama", "Q4_1")
            assert fields["rootfs"] == {"type": "layers", "diff_ids": [digest]}
    assert list((store.root / "downloads").iterdir()) == []


def test_copy_and_overwrite_in_any_case(store: Store, make_gguf: Make) -> None:
    store.add_file("one", io.BytesIO(make_gguf(x="1")))
    store.copy("one", "two:Big")
    store.add_file("TWO:big", io.BytesIO(make_gguf(x="2")))  # the same name: replaces, keeps its first spelling
    assert sorted(entry.name for entry in store.list()) == ["one:latest", "two:Big"]
    assert store.resolve("two:big").read_bytes() == make_gguf(x="2")
    assert store.resolve("one").read_bytes() == make_gguf(x="1")


@pytest.mark.parametrize("data", [b"", b"GGU", b"PK\x03\x04" + bytes(100), b"GGUF" + b"\xff" * 60])
def test_what_is_not_a_model_leaves_nothing(store: Store, data: bytes) -> None:
    with pytest.raises(StoreError):
        store.add_file("bad", io.BytesIO(data))
    assert store.list() == []
    assert not list((store.root / "downloads").iterdir())
    assert not (store.root / "manifests").exists()


def test_a_stream_that_fails_leaves_nothing(store: Store, make_gguf: Make) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(StoreError, match="Input/output error"):
        store.add_file("bad", Broken())
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_resolve_of_paths_and_unknown_names(store: Store, tmp_path: Path, make_gguf: Make) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(make_gguf())
    assert store.resolve(str(path)) == path == store.resolve(path)
    for bad in (str(tmp_path), str(tmp_path / "no.gguf"), "./nothing", "no.gguf", "a\0.gguf", "/\0"):
        with pytest.raises(StoreError, match="no such file"):
            store.resolve(bad)
    with pytest.raises(StoreError, match="not here yet: `ref-engine pull smollm2`"):
        store.resolve("smollm2")
    store.add_file("smollm2:135m", io.BytesIO(make_gguf()))
    assert store.resolve("smollm2").is_file()  # the alias of the built-in
    with pytest.raises(StoreError, match=r"did you mean.*smollm2"):
        store.resolve("smolm2")
    with pytest.raises(StoreError) as caught:
        store.resolve("x" * 80)
    assert "\n" not in str(caught.value)


HOSTILE = [
    b"",
    b"[]",
    b"[" * 100_000,
    b"nonsense",
    b'{"schemaVersion":2}',
    b'{"schemaVersion":1,"config":{},"layers":[{}]}',
    b'{"schemaVersion":2,"config":{},"layers":[]}',
    b" " * (1 << 20) + b"{}",
    json.dumps({"schemaVersion": 2, "config": 5, "layers": [{}]}).encode(),
]
_GOOD = {"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1}
for _bad in (
    {"digest": "sha256:../../../etc/passwd"},
    {"digest": "sha256:" + "0" * 63 + "/"},
    {"digest": "sha256:" + "0" * 64 + "\n"},
    {"digest": "md5:" + "0" * 64},
    {"digest": "sha256:" + "A" * 64},
    {"digest": None},
    {"size": -1},
    {"size": 1 << 60},
    {"size": True},
    {"size": 1.5},
    {"size": "1"},
    {"mediaType": ""},
    {"mediaType": 7},
):
    HOSTILE.append(json.dumps({"schemaVersion": 2, "config": _GOOD, "layers": [{**_GOOD, **_bad}]}).encode())
HOSTILE.append(json.dumps({"schemaVersion": 2, "config": _GOOD, "layers": [_GOOD] * 1000}).encode())
HOSTILE.append(json.dumps({"schemaVersion": 2, "config": _GOOD, "layers": [_GOOD]}).encode())  # no model layer


@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_manifests_on_disk(store: Store, raw: bytes) -> None:
    path = store.root / "manifests" / "local" / "library" / "bad" / "latest"
    path.parent.mkdir(parents=True)
    path.write_bytes(raw)
    assert store.list() == []
    with pytest.raises(StoreError) as caught:
        store.resolve("bad")
    assert "bad" in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_with_a_cut_blob_is_not_listed(ollama: Path) -> None:
    store = Store(ollama)
    os.truncate(store.resolve("tiny"), 10)
    assert store.list() == []
    with pytest.raises(StoreError, match="missing or cut short"):
        store.resolve("tiny")


def test_strangers_in_the_manifests_directory(ollama: Path) -> None:
    for name in (".DS_Store", "registry.example/library/.DS_Store", "registry.example/library/tiny/.tmp"):
        (ollama / "manifests" / name).write_text("x")
    assert len(Store(ollama).list()) == 2


def test_clean_removes_what_nobody_holds(store: Store) -> None:
    work = store.blobs.work
    with store.blobs.temporary() as held:
        held.write_bytes(b"at work")
        (work / "tmp-dead").write_bytes(b"left by a kill")
        (work / "tmp-dead.lock").write_bytes(b"")
        old, young = work / f"sha256-{'0' * 64}.partial", work / f"sha256-{'1' * 64}.partial"
        for path in (old, old.with_suffix(".etag"), young):
            path.write_bytes(b"beginning")
        os.utime(old, (time.time() - 15 * 86400,) * 2)
        store.blobs.clean()
        assert sorted(path.name for path in work.iterdir()) == sorted([young.name, held.name, held.name + ".lock"])


def test_publish_refuses_a_model_with_a_missing_blob(store: Store, make_gguf: Make) -> None:
    store.add_file("a", io.BytesIO(make_gguf()))
    _, name, manifest = store.find("a")
    store.blobs.path(manifest.config.sha256).unlink()
    with pytest.raises(StoreError, match="went missing"):
        store.publish(name, manifest)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1500, "1.5K"), (134_515_008, "134.52M"), (7_241_732_096, "7.2B")]
)
def test_counts_for_people(count: int, text: str) -> None:
    assert human_count(count) == text
