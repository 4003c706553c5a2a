"""The fetching of test assets; the pinned source distribution is stood in for by one made here."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from loopback import Recorder

from ref_engine.errors import StoreError
from ref_engine.library import assets

FOLDER = "llama_cpp_python-0.3.36/vendor/llama.cpp/models/"
WANTED = {
    "vocabs/ggml-vocab-x.gguf": b"GGUF vocabulary",
    "vocabs/ggml-vocab-x.gguf.inp": b"text",
    "vocabs/ggml-vocab-x.gguf.out": b"1 2",
    "templates/a-b.jinja": b"{{ x }}",
}
OTHERS = (
    "templates/README.md",
    "templates/../../evil.jinja",
    "../ggml-vocab-evil.gguf",
    "templates/.hidden.jinja",
    "ggml-vocab-x.gguf.txt",
    "sub/ggml-vocab-y.gguf",
)


def archive_of(path: Path, size: int | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        names = {FOLDER + name.removeprefix("vocabs/"): data for name, data in WANTED.items()}
        names |= {FOLDER + name: b"no" for name in OTHERS} | {"elsewhere/ggml-vocab-z.gguf": b"no"}
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo(FOLDER + "ggml-vocab-link.gguf")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


def pin(monkeypatch: pytest.MonkeyPatch, archive: Path) -> None:
    data = archive.read_bytes()
    pinned = replace(assets.SDIST, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    lines = sorted(f"{name}\0{hashlib.sha256(data).hexdigest()}" for name, data in WANTED.items())
    listing = "".join("{1}  {0}\n".format(*line.split("\0")) for line in lines)
    monkeypatch.setattr(assets, "SDIST", pinned)
    monkeypatch.setattr(assets, "LISTING_SHA256", hashlib.sha256(listing.encode()).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))


def test_only_the_wanted_members(tmp_path: Path) -> None:
    assert dict(assets.sdist_members(archive_of(tmp_path / "x.tar.gz"))) == WANTED


def test_a_damaged_archive(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.tar.gz")
    for data in (b"", b"no archive", archive.read_bytes()[:-100]):
        archive.write_bytes(data)
        with pytest.raises(StoreError, match="damaged"):
            dict(assets.sdist_members(archive))


def test_vocabs_are_fetched_once_and_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bar: Recorder) -> None:
    folder, cache = tmp_path / "links", tmp_path / "cache"
    folder.mkdir()
    pin(monkeypatch, archive_of(folder / assets.SDIST.filename))
    assert assets.fetch_vocabs(cache, bar) is True
    for name, data in WANTED.items():
        assert (cache / name).read_bytes() == data
    assert assets.fetch_vocabs(cache, bar) is False
    (cache / "templates" / "of-a-user.jinja").write_text("left alone")
    (cache / "vocabs" / "ggml-vocab-x.gguf.out").write_bytes(b"1 3")
    assert assets.fetch_vocabs(cache, bar) is True
    assert (cache / "vocabs" / "ggml-vocab-x.gguf.out").read_bytes() == b"1 2"
    assert (cache / "templates" / "of-a-user.jinja").exists() and list((cache / "downloads").iterdir()) == []


def test_what_cannot_be_had_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assets, "CATALOG", assets.CATALOG[:1])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert assets.main([]) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2 and warnings[0].startswith(
        "warning: models/smollm2-135m-instruct-q4_1.gguf: not available"
    )
    assert warnings[1].startswith("warning: vocabs/ and templates/: not available")
    assert assets.main(["--require"]) == 1
