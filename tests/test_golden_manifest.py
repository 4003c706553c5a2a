"""The manifest holds every golden file to its hash, and no golden file is without producer, version and tolerance."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def _load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_manifest", GOLDEN / "make" / "manifest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _load_maker()
FILES: dict[str, dict[str, Any]] = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))["files"]


def test_every_data_file_is_listed_and_nothing_else() -> None:
    assert sorted(FILES) == MAKER.data_files(GOLDEN)


@pytest.mark.parametrize("name", sorted(FILES))
def test_entry_holds_its_file(name: str) -> None:
    entry = FILES[name]
    assert hashlib.sha256((GOLDEN / name).read_bytes()).hexdigest() == entry["sha256"]
    assert entry["producer"] and entry["version"] and entry["tolerance"]
    assert entry["seed"] is None or isinstance(entry["seed"], int)
    assert (GOLDEN.parent / entry["made_by"]).is_file()
    tolerance = entry["tolerance"]
    assert tolerance == "exact" or all(0 <= limit <= 1 for limit in tolerance.values())


def test_manifest_is_what_the_facts_say() -> None:
    assert MAKER.collect(GOLDEN) == FILES


def _folder(root: Path, files: dict[str, Any]) -> None:
    shared = {"made_by": "golden/make/x.py", "producer": "p", "version": "1"}
    (root / "facts.json").write_text(json.dumps({**shared, "files": files}))


def test_a_file_without_facts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "b.bin").write_bytes(b"abc")
    _folder(tmp_path, {"a.bin": {"seed": None, "tolerance": "exact"}})
    with pytest.raises(ValueError, match=r"describes b\.bin"):
        MAKER.collect(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.bin": {"tolerance": "exact"}}, "missing .'seed'"),
        ({"a.bin": {"seed": 1, "tolerance": "exact", "colour": 1}}, "unknown .'colour'"),
        (
            {"a.bin": {"seed": 1, "tolerance": "exact"}, "*": {"seed": 1, "tolerance": "exact"}},
            "two patterns",
        ),
        ({"c.bin": {"seed": 1, "tolerance": "exact"}}, "matches no file"),
    ],
)
def test_bad_facts_are_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    _folder(tmp_path, files)
    with pytest.raises(ValueError, match=message):
        MAKER.collect(tmp_path)


def test_check_reports_a_changed_byte(tmp_path: Path) -> None:
    """sha256 of b"abc" is the worked example of FIPS 180-2."""
    (tmp_path / "a.bin").write_bytes(b"abc")
    _folder(tmp_path, {"a.bin": {"seed": None, "tolerance": "exact"}})
    run = [sys.executable, str(GOLDEN / "make" / "manifest.py"), "--out", str(tmp_path)]
    subprocess.run(run, check=True)
    written = json.loads((tmp_path / "manifest.json").read_text())["files"]["a.bin"]
    assert written["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert subprocess.run([*run, "--check"], check=False).returncode == 0
    (tmp_path / "a.bin").write_bytes(b"abd")
    assert subprocess.run([*run, "--check"], check=False, capture_output=True).returncode == 1
