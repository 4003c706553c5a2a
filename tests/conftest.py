"""What all tests share: golden data, models from the cache, models rebuilt from a specification."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from ref_engine.reference import elementary, ffn

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "golden"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # several processes test at once: none may spin for a core
# no clock decides on a shared machine, and no draw that the change before had not
settings.register_profile("untimed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
CACHE = Path(os.environ.get("REF_ENGINE_CACHE", Path.home() / ".cache" / "ref-engine"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On CI everything is there, so a test that skips has failed, unless it says that it does not apply."""
    report = yield
    if report.skipped and os.environ.get("CI") and "does not apply" not in str(report.longrepr):
        report.outcome, report.longrepr = "failed", f"skipped on CI: {report.longrepr}"
    return report


def nmse(got: NDArray[Any], want: NDArray[Any]) -> NDArray[np.float64]:
    """Squared error over squared size along the last axis, in float64: one figure for each row."""
    got64, want64 = got.astype(np.float64), want.astype(np.float64)
    size = (want64**2).sum(-1)
    return np.asarray(((got64 - want64) ** 2).sum(-1) / np.where(size, size, 1))


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def error() -> Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]:
    return nmse


def cached_model(name: str) -> Path:
    path = CACHE / "models" / name
    if not path.exists():
        pytest.skip(f"model {name} is not in {CACHE}: python -m ref_engine.library.assets fetches it")
    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return cached_model("smollm2-135m-instruct-q4_1.gguf")


@pytest.fixture(scope="session")
def gemma3() -> Path:
    return cached_model("gemma-3-270m-q4_k_m.gguf")


@pytest.fixture
def ggml_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    """ggml looks GELU up in a table of half-precision arguments and results. This is that table's arithmetic."""

    def tabled(x: NDArray[np.float32]) -> NDArray[np.float32]:
        half = np.clip(x, -10, 10).astype(np.float16).astype(np.float32)
        y = elementary.gelu(half).astype(np.float16).astype(np.float32)
        return np.where(x <= -10, np.float32(0), np.where(x >= 10, x, y))

    monkeypatch.setitem(ffn.ACTIVATIONS, "gelu", tabled)


@pytest.fixture(scope="session")
def zoo_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """name -> path of a small .gguf rebuilt from golden/zoo/specs/name.json, or from another folder; built once, by
    whichever of the processes that share the tests comes first."""
    spec = importlib.util.spec_from_file_location("zoo_gguf", GOLDEN / "make" / "zoo_gguf.py")
    assert spec is not None and spec.loader is not None
    zoo_gguf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo_gguf)
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "zoo"
    folder.mkdir(exist_ok=True)

    def build(name: str, specs: str = "zoo/specs") -> Path:
        path = folder / f"{specs.replace('/', '-')}-{name}.gguf"
        if not path.exists():
            described = json.loads((GOLDEN / specs / f"{name}.json").read_text())
            begun = path.with_suffix(f".{os.getpid()}")
            zoo_gguf.build(described, str(begun), described["seed"])
            begun.replace(path)
        return path

    return build
