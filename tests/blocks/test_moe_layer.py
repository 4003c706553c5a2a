"""Experts inside a model: 384 of them against llama.cpp's routing, the log, the counters, tables, patches, errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine.archs import read_spec
from ref_engine.backends import get_ops
from ref_engine.errors import ModelError
from ref_engine.files.gguf import open_gguf
from ref_engine.files.types import GGMLType
from ref_engine.files.writer import write_gguf
from ref_engine.model import Model, check_tensors
from ref_engine.spec import LayerSpec, ModelSpec, MoeSpec
from ref_engine.weights import Weights

Build = Callable[..., Path]
Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]
NAME, LAYER, N_USED, N_EXPERT = "experts-384", 1, 8, 384


@pytest.fixture(scope="module")
def many(zoo_model: Build) -> Path:
    return zoo_model(NAME, "experts/specs")


@pytest.fixture(scope="module")
def data(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "experts" / "nodes" / f"{NAME}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_384_experts_are_routed_as_llama_cpp_does(
    backend: str, many: Path, data: dict[str, np.ndarray], error: Nmse
) -> None:
    """Groups and experts in the same order; logits of the router, weights, results and logits to the rounding."""
    model = ref_engine.load(many, backend=backend, activations="f32")
    with ref_engine.trace(model, "ffn_moe_*-1") as t:
        logits = model.logits(data["tokens"].tolist())
    for name in ("ffn_moe_group_topk-1", "ffn_moe_topk-1"):
        assert t[name].dtype == np.int32
        np.testing.assert_array_equal(t[name], data[name])
    for name in ("ffn_moe_logits-1", "ffn_moe_weights_scaled-1", "ffn_moe_out-1"):
        assert error(t[name], data[name]).max() < 1e-10
    assert error(logits, data["logits"]).max() < 1e-9


def test_the_backends_have_the_same_bits(many: Path, data: dict[str, np.ndarray]) -> None:
    """At once, in two parts, and together with another sequence."""
    ids = data["tokens"].tolist()
    models = [ref_engine.load(many, backend=backend, activations="q8") for backend in ("numpy", "native")]
    want = models[0].logits(ids)
    np.testing.assert_array_equal(models[1].logits(ids), want)
    for model in models:
        first, other = model.new_cache(), model.new_cache()
        model.forward(ids[:20], first)
        ours, _ = model.step([(ids[20:], first), (ids[3:9], other)])
        np.testing.assert_array_equal(ours, want[-1])


def test_each_use_of_an_expert_is_counted(many: Path, data: dict[str, np.ndarray]) -> None:
    model = ref_engine.load(many, backend="numpy", activations="f32")
    ids = data["tokens"].tolist()
    assert model.expert_load.counts == {}
    model.logits(ids)
    want = np.bincount(data["ffn_moe_topk-1"].reshape(-1), minlength=N_EXPERT)
    assert list(model.expert_load.counts) == [LAYER]
    np.testing.assert_array_equal(model.expert_load.counts[LAYER], want)
    model.expert_load.counts[LAYER][:] = 0  # a copy
    model.logits(ids)
    np.testing.assert_array_equal(model.expert_load.counts[LAYER], 2 * want)
    model.expert_load.reset()
    assert model.expert_load.counts == {}


def test_one_line_of_log_for_each_layer_and_pass(
    many: Path, data: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    model = ref_engine.load(many, backend="numpy", activations="f32")
    model.logits(data["tokens"][:2].tolist())
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, "ref_engine.blocks.moe"):
        model.logits(data["tokens"][:2].tolist())
    (line,) = (record.getMessage() for record in caplog.records)
    chosen, weights = (data[name][:2] for name in ("ffn_moe_topk-1", "ffn_moe_weights_scaled-1"))
    rounded = np.round(weights.astype(np.float64), 4).tolist()
    assert line == f"layer 1: 384 experts, chosen {chosen.tolist()}, weights {rounded}"


def test_other_experts_may_be_put_in_place(many: Path, data: dict[str, np.ndarray]) -> None:
    """A patch of the choice takes effect, and one that is no expert is an error that says which."""
    model = ref_engine.load(many, backend="numpy", activations="f32")
    ids = data["tokens"][:4].tolist()
    plain = model.logits(ids)
    with ref_engine.trace(model, "ffn_moe_weights-1") as t:
        t.patch("ffn_moe_topk-1", lambda chosen: chosen[:, ::-1])
        turned = model.logits(ids)
    weights = t["ffn_moe_weights-1"]
    assert (np.diff(weights[:, :2], axis=1) != 0).all()
    np.testing.assert_allclose(turned, plain, rtol=1e-4, atol=1e-5)  # the same experts in another order
    for bad in (N_EXPERT, -1):
        with ref_engine.trace(model) as t, pytest.raises(ModelError, match=f"expert {bad} is not one of 0..383"):
            t.patch("ffn_moe_topk-1", lambda chosen, bad=bad: np.full_like(chosen, bad))
            model.logits(ids)


# -- experts by token id ------------------------------------------------------------------------------------------


def with_table(source: Path, to: Path, table: np.ndarray) -> Model:
    """The model of a file, its experts chosen by a table of the token ids."""
    name = "ffn_gate_tid2eid.weight"
    file = open_gguf(source)
    tensors = [(n, info.shape, info.type, file.data(n)) for n, info in file.tensors.items()]
    tensors.append((f"blk.{LAYER}.{name}", table.shape, GGMLType.I32, table.astype("<i4").reshape(-1).view(np.uint8)))
    write_gguf(to, file.metadata, tensors, types=file.types)
    file = open_gguf(to)
    plain = read_spec(file.metadata, file.tensors.keys())
    spec = replace(plain, layers=tuple(tabled(plain, i, name) for i in range(plain.n_layer)))
    weights = Weights.of_file(file, 0)
    check_tensors(spec, weights)
    return Model(file, spec, weights, get_ops("numpy", "f32"), "f32")


def tabled(spec: ModelSpec, i: int, name: str) -> LayerSpec:
    ffn = spec.layers[i].ffn
    if not isinstance(ffn, MoeSpec):
        return spec.layers[i]
    routing = replace(ffn.routing, table=name, n_vocab=spec.n_vocab)
    return replace(spec.layers[i], ffn=replace(ffn, routing=routing))


def test_experts_by_token_id(many: Path, tmp_path: Path, data: dict[str, np.ndarray]) -> None:
    ids = data["tokens"].tolist()
    table = np.random.default_rng(0).permuted(np.tile(np.arange(N_EXPERT), (128, 1)), axis=1)[:, :N_USED]
    model = with_table(many, tmp_path / "table.gguf", table)
    with ref_engine.trace(model, "ffn_moe_topk-1", "ffn_moe_probs-1", "ffn_moe_weights-1") as t:
        model.logits(ids)
    np.testing.assert_array_equal(t["ffn_moe_topk-1"], table[ids])
    scores = np.take_along_axis(t["ffn_moe_probs-1"], table[ids], axis=1)
    np.testing.assert_array_equal(t["ffn_moe_weights-1"], scores)


def test_a_table_with_an_expert_that_is_none(many: Path, tmp_path: Path) -> None:
    table = np.zeros((128, N_USED))
    table[5, 3] = N_EXPERT
    model = with_table(many, tmp_path / "table.gguf", table)
    model.logits([4, 6])
    message = r"^tensor blk\.1\.ffn_gate_tid2eid\.weight: expert 384.0 is not one of 0\.\.383$"
    with pytest.raises(ModelError, match=message):
        model.logits([4, 5])


# -- what a file may not say --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expert_used_count": 385}, "dots1.expert_used_count is 385, expected 1 to expert_count 384"),
        ({"expert_used_count": 0}, "dots1.expert_used_count is 0, expected 1 to expert_count 384"),
        ({"expert_count": 0}, "dots1.expert_count is 0, expected a whole number of at least 1"),
        ({"expert_group_count": 7}, "dots1.expert_group_count is 7, expected a divisor of 384 experts, less than that"),
        ({"expert_group_count": 384}, "dots1.expert_group_count is 384, expected a divisor of 384"),
        ({"expert_group_used_count": 8}, "dots1.expert_group_used_count is 8, expected a number of 1 to 7"),
        ({"expert_group_used_count": 0}, "dots1.expert_group_used_count is 0, expected a number of 1 to 7"),
        ({"expert_gating_func": 5}, "dots1.expert_gating_func is 5, expected a number of 1 to 4"),
        ({"expert_gating_func": 0}, "dots1.expert_gating_func is 0, expected a whole number of at least 1"),
        ({"expert_weights_scale": float("nan")}, "dots1.expert_weights_scale is nan, expected a finite number"),
        ({"expert_weights_norm": 1}, "dots1.expert_weights_norm is 1, expected true or false"),
        ({"expert_feed_forward_length": [32]}, r"dots1.expert_feed_forward_length is \[32\], expected 2 whole numbers"),
    ],
)
def test_impossible_metadata_name_the_key(change: dict[str, object], message: str, many: Path) -> None:
    file = open_gguf(many)
    metadata = dict(file.metadata) | {f"dots1.{key}": value for key, value in change.items()}
    with pytest.raises(ModelError, match=f"^metadata key {message}"):
        read_spec(metadata, file.tensors.keys())


def test_missing_and_misshapen_experts_are_named(many: Path, tmp_path: Path) -> None:
    file = open_gguf(many)
    name = "blk.1.ffn_down_exps.weight"

    def write(tensors: dict[str, tuple[int, ...]]) -> Path:
        path = tmp_path / "changed.gguf"
        rows = [(n, shape, file.tensors[n].type, file.data(n)) for n, shape in tensors.items()]
        write_gguf(path, file.metadata, rows, types=file.types)
        return path

    shapes = {n: info.shape for n, info in file.tensors.items()}
    with pytest.raises(ModelError, match=f"^tensor {name} is missing from the file$"):
        ref_engine.load(write({n: shape for n, shape in shapes.items() if n != name}), backend="numpy")
    message = rf"^tensor {name} has shape \[384, 32, 64\], the metadata ask for \[384, 64, 32\]$"
    with pytest.raises(ModelError, match=message):
        ref_engine.load(write(shapes | {name: (384, 32, 64)}), backend="numpy")
