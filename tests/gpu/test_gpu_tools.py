"""Those who look into a model, measure it or hold it against others, on a GPU's arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import standin
from click.testing import CliRunner

import ref_engine
from ref_engine.bench.profile import profile
from ref_engine.cli import main
from ref_engine.imatrix.collect import collect
from ref_engine.lens.selection import Selection
from ref_engine.lens.sizes import planned
from ref_engine.views import attention, experts, layers, times

Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]
IDS = [5, 17, 40, 3, 8, 99, 2]


@pytest.fixture(params=[{}, {"gpu_layers": 3}], ids=["whole", "split"])
def models(request: pytest.FixtureRequest, golden: Path, cupy: standin.Cupy) -> list[ref_engine.Model]:
    """The definition, and the same model on the GPU, or its last two layers there."""
    path = golden / "models" / "tiny-moe.gguf"
    return [
        ref_engine.load(path, backend="numpy", activations="f32"),
        ref_engine.load(path, backend="cupy", activations="f32", **request.param),
    ]


@pytest.mark.parametrize("layer", [0, 3])
def test_attention_maps(layer: int, models: list[ref_engine.Model]) -> None:
    want, got = (attention(model, IDS, layer).maps for model in models)
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_what_layers_and_routers_say(models: list[ref_engine.Model]) -> None:
    want, got = (layers(model, IDS) for model in models)
    assert len(got.rows) == len(want.rows) == 5
    for a, b in zip(got.rows, want.rows, strict=True):
        np.testing.assert_array_equal(a.ids[:, :1], b.ids[:, :1])
    for a, b in zip(*(experts(model, IDS) for model in models), strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)


def test_times_and_profile_see_every_operation(models: list[ref_engine.Model]) -> None:
    model = models[1]
    found = times(model, IDS, repeat=1)
    names = {operation.name for operation in found.operations}
    assert found.backend == "cupy" and {"linears", "attend", "route", "moe_ffn", "rms_norm"} <= names
    moe = [operation for operation in profile(model, 3, repeat=1).operations if operation.name == "moe_ffn"]
    assert len(moe) == 1 and moe[0].nbytes > 0


def test_an_importance_matrix(models: list[ref_engine.Model]) -> None:
    want, got = (collect(model, [IDS]) for model in models)
    assert want.entries.keys() == got.entries.keys()
    for name, entry in want.entries.items():
        np.testing.assert_allclose(got.entries[name].sums, entry.sums, rtol=1e-3, atol=1e-6, err_msg=name)


def test_sizes_are_known_before_a_trace(models: list[ref_engine.Model]) -> None:
    want, got = (planned(model, IDS, Selection(("*",)), 4) for model in models)
    assert got == want and len(got) > 40


def test_verify_holds_the_backend(cupy: standin.Cupy) -> None:
    """Operations and products of every type, whose inputs go to the device and whose results come back."""
    asked = ["verify", "--backend", "cupy", "--activations", "f32", "--quiet"]
    result = CliRunner().invoke(main, [*asked, "--only", "ops/*", "--only", "quant/*/product/*"])
    assert result.exit_code == 0, result.output
    assert "backend cupy: 56 passed, 0 failed, 0 skipped" in result.output
