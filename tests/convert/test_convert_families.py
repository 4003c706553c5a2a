"""Conversion against llama.cpp's converter, and the converted models against transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import FAMILIES
from numpy.typing import NDArray

from ref_engine import load
from ref_engine.archs.hf import RECIPES
from ref_engine.convert import plan_conversion, write_plan
from ref_engine.files import open_gguf
from ref_engine.files.types import ArrayType, GGUFValueType

Checkpoint = Callable[..., Path]
NMSE = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]
# transformers' exact GELU against ggml's by tanh; epsilons of norms for which GGUF has no key of their own
LOOSE = {"falcon-7b": 1e-7, "falcon-40b": 1e-7, "gptneox": 1e-7, "mpt": 1e-7, "glm": 1e-8, "falcon-mamba": 1e-8}


def converted(name: str, folder: Path) -> Path:
    """The hash of a small tokenizer is not known, so its name is given, as it was to llama.cpp."""
    target = folder.with_suffix(".gguf")
    write_plan(plan_conversion(folder, FAMILIES[name]["outtype"], pre="gpt-2"), target)
    return target


@pytest.mark.parametrize("name", FAMILIES)
def test_every_key_and_every_byte(name: str, checkpoint: Checkpoint) -> None:
    want = FAMILIES[name]
    with open_gguf(converted(name, checkpoint(name))) as file:
        found = {
            key: [info.type.name, list(info.shape), hashlib.sha256(file.data(key).tobytes()).hexdigest()[:24]]
            for key, info in file.tensors.items()
        }
        assert list(found) == list(want["tensors"])
        for key, expected in want["tensors"].items():
            assert found[key][:2] == expected[:2], key
            if key in want["exact"]:  # torch's exp is not rounded to the nearest float32
                values = file.data(key).view("<f4").reshape(found[key][1])
                np.testing.assert_array_max_ulp(values, np.array(want["exact"][key], np.float32), 1)
            else:
                assert found[key][2] == expected[2], key
        metadata = {key: _plain(value) for key, value in file.metadata.items()}
        assert metadata == want["metadata"]
        assert {key: _numbers(kind) for key, kind in file.types.items()} == want["types"]


def _plain(value: Any) -> Any:
    return (
        value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, list | tuple) else value
    )


def _numbers(kind: GGUFValueType | ArrayType) -> list[int]:
    return [int(GGUFValueType.ARRAY), int(kind.item)] if isinstance(kind, ArrayType) else [int(kind)]


LOGITS = sorted(p.stem for p in (Path(__file__).parents[2] / "golden" / "convert" / "logits").glob("*.npz"))


@pytest.mark.parametrize("name", LOGITS)
def test_the_converted_model_is_the_model(name: str, checkpoint: Checkpoint, golden: Path, error: NMSE) -> None:
    folder = checkpoint(name)
    plan = plan_conversion(folder, FAMILIES[name]["outtype"], pre="gpt-2")
    if plan.cannot_run is not None:
        pytest.skip(f"does not apply: {plan.cannot_run}")
    data = np.load(golden / "convert" / "logits" / f"{name}.npz")
    model = load(converted(name, folder), backend="numpy", activations="f32")
    logits = model.logits([int(i) for i in data["tokens"]])[:, : data["logits"].shape[1]]
    assert error(logits, data["logits"]).max() < LOOSE.get(name, 1e-9)


def test_the_goldens_cover_most_recipes() -> None:
    """Others are aliases of these, or have no model in transformers."""
    proved = {RECIPES[entry["config"]["architectures"][0]].arch for entry in FAMILIES.values()}
    assert len(proved) >= 45
    assert {recipe.arch for recipe in RECIPES.values()} - proved == {"deepseek"}
