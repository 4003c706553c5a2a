"""The script that is to run on a GPU runs, so that the GPU's time is not spent on mistakes in it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import standin

SCRIPT = Path(__file__).parents[2] / "docs" / "benchmarks" / "gpu.py"


def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_script_shows_what_it_should(
    tmp_path: Path, cupy: standin.Cupy, capsys: pytest.CaptureFixture[str]
) -> None:
    script = benchmark()
    parts = ["device", "ceiling", "products", "dense", "accuracy"]
    script.main(["--tiny", "--folder", str(tmp_path), "--only", *parts])
    found = json.loads(capsys.readouterr().out)
    assert [name for name in parts if "error" in found[name]] == []
    assert found["device"]["name"] == "stand-in" and found["ceiling"]["read"] > 0
    assert len(found["products"]) == 12 and min(found["products"].values()) > 0
    for mode in ("q8", "f32"):
        assert found["dense"][mode]["steps"] == 7 and found["dense"][mode]["share"] > 0
    assert len(found["accuracy"]["small"]) == 3 and found["accuracy"]["errors"] == 0
    assert found["accuracy"]["worst_f32"] < 1e-9
