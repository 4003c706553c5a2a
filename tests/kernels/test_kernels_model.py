"""Whole models on the native backend: the logits of the NumPy backend, bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

import ref_engine
from ref_engine.backends import native_ops
from ref_engine.model import Model

F32 = NDArray[np.float32]
Same = Callable[[F32, F32], None]
Nmse = Callable[[F32, F32], NDArray[np.float64]]
Build = Callable[..., Path]
ZOO = ["llama-bias", "llama-softcap", "llama-rope-yarn", "llama-mqa", "gemma3-dense", "gemma3-softcap"]


def on(model: Model, isa: str, activations: str = "q8") -> Model:
    """The same file on the kernels of one instruction set."""
    ops = native_ops(activations, 1, isa)  # type: ignore[arg-type]
    return Model(model.file, model.spec, model.weights, ops, model.activations)


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_real_models(name: str, isa: str, request: pytest.FixtureRequest, same_bits: Same) -> None:
    model = real_model(request.getfixturevalue(name))
    ids = [1 + 37 * i % 900 for i in range(24)]
    native = on(model, isa)
    got = native.logits(ids)
    same_bits(got, reference_logits(model, tuple(ids)))
    cache = native.new_cache()
    parts = [native.forward(ids[a:b], cache) for a, b in ((0, 17), (17, 18), (18, 24))]
    same_bits(np.concatenate(parts), got)


_models: dict[Path, Model] = {}
_logits: dict[Path, F32] = {}


def real_model(path: Path) -> Model:
    """Loaded once for all instruction sets."""
    if path not in _models:
        _models[path] = ref_engine.load(path, backend="numpy")
    return _models[path]


def reference_logits(model: Model, ids: tuple[int, ...]) -> F32:
    if model.file.path not in _logits:
        _logits[model.file.path] = model.logits(ids)
    return _logits[model.file.path]


@pytest.mark.parametrize("name", ZOO)
def test_small_models_in_both_splits(name: str, isa: str, zoo_model: Build, same_bits: Same) -> None:
    model = ref_engine.load(zoo_model(name), backend="numpy", activations="q8")
    ids = list(range(3, 20))
    want, native = model.logits(ids), on(model, isa)
    same_bits(native.logits(ids), want)
    cache = native.new_cache()
    same_bits(np.stack([native.last_logits([i], cache) for i in ids]), want)


@pytest.mark.parametrize("name", ["llama-gqa", "gemma3-dense"])
def test_exact_products(name: str, isa: str, zoo_model: Build, error: Nmse) -> None:
    model = ref_engine.load(zoo_model(name), backend="numpy", activations="f32")
    ids = list(range(3, 20))
    assert error(on(model, isa, "f32").logits(ids), model.logits(ids)).max() < 1e-10


def test_tracing_runs_the_composition(isa: str, zoo_model: Build, same_bits: Same) -> None:
    model = on(ref_engine.load(zoo_model("llama-gqa"), backend="numpy", activations="q8"), isa)
    ids = list(range(3, 12))
    plain = model.logits(ids)
    with ref_engine.trace(model, "kq_soft_max-*") as t:
        same_bits(model.logits(ids), plain)
    assert np.allclose(t["kq_soft_max-0"].sum(-1), 1, atol=1e-5)


def test_layers_that_it_knows_run_in_one_call(isa: str, zoo_model: Build, same_bits: Same) -> None:
    """Nothing smaller is called, until somebody looks."""
    model = ref_engine.load(zoo_model("qwen3moe-moe", "architectures/specs"), backend="numpy", activations="q8")
    ids = list(range(3, 20))
    want = model.logits(ids)

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a layer was composed")

    ops = replace(native_ops("q8", 1, isa), attention_half=refuse, attend=refuse, route=refuse, moe_ffn=refuse)
    native = Model(model.file, model.spec, model.weights, ops, model.activations)
    same_bits(native.logits(ids), want)
    with ref_engine.trace(native, "l_out-*"), pytest.raises(AssertionError, match="composed"):
        native.logits(ids)
