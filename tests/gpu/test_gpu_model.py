"""Whole models through the GPU's wiring, over the stand-in for CuPy: the same logits as NumPy's, wherever parts are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import standin
from test_gpu_benchmark import benchmark

import ref_engine
from ref_engine.blocks.split import n_layers
from ref_engine.gpu import experts, products
from ref_engine.gpu.packed import PLAIN, has_kernel

Build = Callable[..., Path]
Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]
CLOSE = 1e-9  # NMSE at the worst position; what is promised is 1e-6

# One for each kind of layer, of memory, of choosing and of routing: given models, and drawn ones where they are smaller
FAMILIES = [
    *[(name, "specs") for name in (
        "bloom-dense", "deepseek4-moe", "glm5-next-moe", "hy_v4-moe", "jamba-dense", "kimi-k3-moe", "lfm2-dense",
        "mamba2-dense", "qwen4exp-moe",
    )],
    *[(name, "variants") for name in (
        "deepseek32-moe", "dream-dense", "gpt-oss-moe", "grovemoe-moe", "hrm_text-dense", "llama4-moe",
        "minimax-01-moe", "mpt-dense", "qwen3next-moe",
    )],
]  # fmt: skip
SPLIT = ["llama4-moe", "kimi-k3-moe", "hrm_text-dense", "hy_v4-moe", "qwen4exp-moe"]  # what layers leave for later ones


def drawn(model: ref_engine.Model, n: int = 20) -> list[int]:
    return np.random.default_rng(1).integers(0, model.spec.n_vocab, n).tolist()


def both(path: Path, **options: object) -> tuple[ref_engine.Model, ref_engine.Model]:
    truth = ref_engine.load(path, backend="numpy", activations="f32")
    return truth, ref_engine.load(path, backend="cupy", activations="f32", **options)


@pytest.mark.parametrize("name", ["llama-gqa", "gemma3-softcap", "gemma3-pattern-scalar"])
def test_given_models(name: str, zoo_model: Build, cupy: standin.Cupy, error: Nmse) -> None:
    truth, model = both(zoo_model(name))
    ids = drawn(truth, 24)
    want = truth.logits(ids)
    assert error(model.logits(ids), want).max() < CLOSE
    cache = model.new_cache()
    split = [model.forward(ids[:10], cache), model.forward([ids[10]], cache), model.forward(ids[11:], cache)]
    assert error(np.concatenate(split), want).max() < CLOSE


@pytest.mark.parametrize(("name", "folder"), FAMILIES)
def test_families(name: str, folder: str, zoo_model: Build, cupy: standin.Cupy, error: Nmse) -> None:
    """At once, and what remembers, token by token behind half of it."""
    truth, model = both(zoo_model(name, f"architectures/{folder}"))
    ids = drawn(truth, 13)
    want = truth.logits(ids)
    got = model.logits(ids)
    assert isinstance(got, np.ndarray) and got.dtype == np.float32
    finite = np.isfinite(want[0])  # some never give certain tokens
    assert (np.isfinite(got) == finite).all()
    assert error(got[:, finite], want[:, finite]).max() < CLOSE
    if model.spec.causal:
        cache = model.new_cache()
        model.forward(ids[:11], cache)
        for t in range(11, 13):
            assert error(model.last_logits([ids[t]], cache)[finite], want[t, finite]) < CLOSE
    assert not twice(model)


def twice(model: ref_engine.Model) -> list[str]:
    """Weights that the device has both as in the file and apart for kernels."""
    there = {n: w for n, w in model.weights.at(model.ops.place).items() if w.type not in PLAIN}
    there |= {f"{n}[{e}]": one for n, w in there.items() for e, one in w.kept.get("experts", {}).items()}
    return [name for name, weight in there.items() if {"bytes", "packed"} <= weight.kept.keys()]


@pytest.mark.parametrize("name", ["Q8_0 experts", "Q4_K"])
@pytest.mark.parametrize("mode", ["f32", "q8"])
def test_packed_weights(
    name: str, mode: str, golden: Path, cupy: standin.Cupy, error: Nmse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All products by kernels: a token at a time with the roundings of the definition, and several at once."""
    for user in (products, experts):
        monkeypatch.setattr(user, "has_kernel", has_kernel)
    path = golden / "models" / "tiny-moe.gguf"
    if name == "Q4_K":
        size = {"layers": 1, "width": 256, "hidden": 256, "heads": 2, "vocabulary": 96}
        path = benchmark().dense_file(tmp_path / "dense.gguf", size)
    truth, model = (ref_engine.load(path, backend=backend, activations=mode) for backend in ("numpy", "cupy"))
    caches = [truth.new_cache(), model.new_cache()]
    for t in drawn(truth, 3):
        want, got = (one.last_logits([t], cache) for one, cache in zip((truth, model), caches, strict=True))
        assert error(got, want) < {"f32": CLOSE, "q8": 1e-4}[mode]
    ids = drawn(truth, 12)
    exact = ref_engine.load(path, backend="numpy", activations="f32").logits(ids)
    assert error(model.logits(ids), exact).max() < {"f32": CLOSE, "q8": 1e-4}[mode]  # tiles of float16
    assert not twice(model)
    pool = cupy.get_default_memory_pool()
    del caches
    assert pool.used_bytes() < 1.02 * sum(w.nbytes for w in truth.weights.values()) + 100_000


@pytest.mark.parametrize("options", [{"gpu_layers": 1}, {"gpu_layers": 2}, {"gpu_layers": 2, "experts_on": "cpu"}])
@pytest.mark.parametrize("name", SPLIT)
def test_parts_in_two_places(
    name: str, options: dict[str, object], zoo_model: Build, cupy: standin.Cupy, error: Nmse
) -> None:
    truth, model = both(zoo_model(name, "architectures/specs"), **options)
    ids = drawn(truth, 12)
    cache = model.new_cache()
    got = np.concatenate([model.forward(ids[:9], cache), model.forward(ids[9:], cache)])
    assert error(got, truth.logits(ids)).max() < CLOSE
    assert model.split is not None and model.split.first == n_layers(model.spec) + 1 - options["gpu_layers"]


def test_layers_live_where_they_are_computed(zoo_model: Build, cupy: standin.Cupy) -> None:
    """Two layers: with 2 the device has the output and the second; the first one's keys are the host's."""
    model = ref_engine.load(zoo_model("llama-gqa"), backend="cupy", activations="f32", gpu_layers=2)
    cache = model.new_cache()
    model.forward(drawn(model), cache)
    assert [type(cache.append(i, "k", like(cache, i))) for i in range(2)] == [np.ndarray, standin.Array]
    assert "f32" not in model.weights["blk.1.attn_norm.weight"].kept  # the host made nothing of it
    whole = ref_engine.load(zoo_model("llama-gqa"), backend="cupy", activations="f32", gpu_layers=3)
    assert whole.split is None
    none = ref_engine.load(zoo_model("llama-gqa"), backend="cupy", activations="f32", gpu_layers=0)
    assert none.ops.name != "cupy" and none.split is None


def like(cache: ref_engine.model.Cache, layer: int) -> object:
    """A new row of keys where the layer's are."""
    return cache.with_room(layer, "k", 1)[-1:]


def test_experts_stay_on_the_host(zoo_model: Build, cupy: standin.Cupy) -> None:
    model = ref_engine.load(
        zoo_model("gpt-oss-moe", "architectures/specs"), backend="cupy", activations="f32", experts_on="cpu"
    )
    model.logits(drawn(model, 5))
    there = model.weights.at(model.ops.place)
    for name in ("blk.0.ffn_up_exps.weight", "blk.0.ffn_up_exps.bias"):
        assert there[name] is model.weights[name]
    assert there["blk.0.attn_q.weight"].place is model.ops.place
    assert isinstance(there["blk.0.attn_q.weight"].f32(), standin.Array)


def test_several_sequences_at_once(zoo_model: Build, cupy: standin.Cupy, error: Nmse) -> None:
    truth, model = both(zoo_model("qwen3next-moe", "architectures/specs"))
    texts = [drawn(truth, 5), drawn(truth, 9)[3:], drawn(truth, 4)[2:]]
    got = model.step([(ids, model.new_cache()) for ids in texts])
    for ids, row in zip(texts, got, strict=True):
        assert error(row, truth.logits(ids)[-1]) < CLOSE


def test_experts_are_counted(zoo_model: Build, cupy: standin.Cupy) -> None:
    truth, model = both(zoo_model("gpt-oss-moe", "architectures/specs"))
    for one in (truth, model):
        one.logits(drawn(one, 7))
        one.logits(drawn(one, 3))
    want, got = truth.expert_load.counts, model.expert_load.counts
    assert want.keys() == got.keys()
    for layer, counts in want.items():
        np.testing.assert_array_equal(got[layer], counts)


def test_a_cache_goes_back_and_is_taken_over(zoo_model: Build, cupy: standin.Cupy, error: Nmse) -> None:
    truth, model = both(zoo_model("jamba-dense", "architectures/specs"))
    ids = drawn(truth, 16)
    cache, other = model.new_cache(), model.new_cache()
    model.forward(ids[:12], cache)
    cache.truncate(8)
    other.take(cache, 8)
    for one in (cache, other):
        assert error(model.last_logits(ids[8:], one), truth.logits(ids)[-1]) < CLOSE
    assert cache.nbytes > 0


def test_a_trace_has_numpy_arrays_and_may_give_some_back(zoo_model: Build, cupy: standin.Cupy, error: Nmse) -> None:
    truth, model = both(zoo_model("llama4-moe", "architectures/specs"))
    ids = drawn(truth, 6)
    seen = []
    for one in (truth, model):
        with ref_engine.trace(one) as t:
            t.patch("l_out-0", lambda x: x * np.float32(0.5), positions=[2, 3])
            t.patch("kq_soft_max-1", np.flip)
            one.logits(ids)
        seen.append(dict(t))
    want, got = seen
    assert want.keys() == got.keys() and len(want) > 40
    for name, value in got.items():
        assert type(value) is np.ndarray and value.dtype == want[name].dtype, name
        if value.dtype.kind == "f":
            finite = np.isfinite(want[name])
            assert error(np.where(finite, value, 0), np.where(finite, want[name], 0)).max() < 1e-8, name
        else:
            np.testing.assert_array_equal(value, want[name], err_msg=name)


def test_greedy_text_is_numpys(golden: Path, cupy: standin.Cupy) -> None:
    truth, model = both(golden / "models" / "tiny-moe.gguf")
    texts = ["".join(e.text for e in one.generate("The ", max_tokens=12, temperature=0)) for one in (truth, model)]
    assert texts[0] == texts[1] and len(texts[0]) > 5
