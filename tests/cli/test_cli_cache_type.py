"""--cache-type and $OLLAMA_KV_CACHE_TYPE: which commands take them, and what they do to memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Invoke

from ref_engine.cli.options import CACHE_TYPES
from ref_engine.quant import rows

Build = Callable[[str, str], Path]
SPECS = "architectures/specs"


def test_the_types_are_those_of_the_engine() -> None:
    assert CACHE_TYPES == rows.CACHE_TYPES


def test_plan(invoke: Invoke, zoo_model: Build) -> None:
    """34 bytes in place of 64, and a line that compares."""
    path = str(zoo_model("llama-dense", SPECS))
    made = {t: json.loads(invoke("plan", path, "--json", "--cache-type", t).stdout) for t in CACHE_TYPES}
    assert {t: plan["memory"]["kv_cache"] for t, plan in made.items()} == made["f32"]["cache"]
    assert made["f16"]["cache"]["q8_0"] * 64 == made["f16"]["cache"]["f16"] * 34 > 0
    shown = invoke("plan", path).stdout
    assert "as f32, " in shown and "as f16, " in shown and "as q8_0" in shown
    exact = json.loads(invoke("plan", path, "--json", "--activations", "f32").stdout)
    assert exact["memory"]["kv_cache"] == made["f32"]["memory"]["kv_cache"]


def test_keys_that_are_no_blocks(invoke: Invoke, zoo_model: Build) -> None:
    path = str(zoo_model("laguna-moe", SPECS))
    assert "q8_0" not in json.loads(invoke("plan", path, "--json").stdout)["cache"]
    for command in (["plan", path], ["logits", path, "--tokens", "1,2"]):
        result = invoke(*command, "--cache-type", "q8_0")
        assert result.exit_code == 2 and "whole blocks" in result.stderr


def test_serve_takes_ollamas_variable(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_KV_CACHE_TYPE", "q4_0")
    result = invoke("serve", "--port", "0")
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "OLLAMA_KV_CACHE_TYPE is 'q4_0', expected f32, f16, q8_0 or nothing" in result.stderr


def test_a_trace_and_a_profile_count_numbers_not_blocks(invoke: Invoke, zoo_model: Build, tmp_path: Path) -> None:
    path = str(zoo_model("llama-dense", SPECS))
    shapes, macs = [], []
    for type in ("f16", "q8_0"):
        out = tmp_path / f"{type}.npz"
        result = invoke("trace", path, "--tokens", "1,2,3", "-o", str(out), "--cache-type", type, "-q")
        assert result.exit_code == 0, result.stderr
        with np.load(out) as data:
            shapes.append({name: data[name].shape for name in data.files})
        found = invoke("bench", path, "prefill=4", "--profile", "--json", "--cache-type", type)
        assert found.exit_code == 0, found.stderr
        (done,) = json.loads(found.stdout)["passes"]
        macs.append({o["name"]: o["macs"] for o in done["operations"]})
    assert shapes[0] == shapes[1] and any(name.startswith("kqv-") for name in shapes[0])
    assert macs[0] == macs[1] and sum(macs[0].values()) > 0
