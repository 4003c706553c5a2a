"""Keys and values in blocks of 8 bits: llama.cpp's logits, what they cost in memory, and what cannot be held."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine.cache import Cache, cache_bytes
from ref_engine.compat import has_kernels
from ref_engine.quant.rows import CacheType
from ref_engine.spec import AttentionSpec

Build = Callable[[str, str], Path]
FOLDER = Path(__file__).parents[1] / "golden"
FILES = json.loads((FOLDER / "cache" / "facts.json").read_text())["files"]
SPECS = "architectures/specs"


def nmse(got: np.ndarray, want: np.ndarray) -> float:
    got, want = got.astype(np.float64), want.astype(np.float64)
    return float(((got - want) ** 2).sum() / (want**2).sum())


@pytest.mark.parametrize("name", [file.removesuffix(".npz") for file in FILES])
def test_logits_are_llama_cpps(name: str, zoo_model: Build, ggml_gelu: None) -> None:
    """Within a twentieth of what the blocks take away; and in f32 mode, which rounds no query, they take less."""
    facts = FILES[f"{name}.npz"]
    ids = np.load(FOLDER / f"architectures/logits/{name}.npz")["tokens"]
    exact, want = (np.load(FOLDER / f"{place}/{name}.npz")["logits"] for place in ("architectures/logits", "cache"))
    path = zoo_model(name, SPECS)
    got = ref_engine.load(path, backend="numpy", cache_type="q8_0").logits(ids)
    assert nmse(got, want) < facts["tolerance"]["nmse"]
    truth = ref_engine.load(path, backend="numpy", activations="f32", cache_type="q8_0").logits(ids)
    assert facts["measured"]["distance_of_f32_nmse"] / 20 < nmse(truth, exact) < nmse(got, exact) * 1.1


@pytest.mark.parametrize("type", ["f32", "q8_0"])
@pytest.mark.parametrize("name", ["llama-dense", "hy_v4-moe", "qwen35-dense", "deepseek4-moe", "dream-dense"])
def test_same_bits_for_any_split_and_on_the_kernels(name: str, type: CacheType, zoo_model: Build) -> None:
    ids = np.load(FOLDER / f"architectures/logits/{name}.npz")["tokens"][:25].tolist()
    backends = ("numpy", "native") if has_kernels else ("numpy",)
    models = [ref_engine.load(zoo_model(name, SPECS), backend=b, cache_type=type) for b in backends]
    whole = models[0].logits(ids)
    for model in models:
        assert (model.logits(ids) == whole).all()
        if not model.spec.causal:
            continue
        cache, other = model.new_cache(), model.new_cache()
        parts = [model.forward(ids[:11], cache), *(model.forward([i], cache) for i in ids[11:14])]
        other.take(cache, 9)
        assert (np.concatenate(parts) == whole[:14]).all()
        got = model.step([(ids[14:], cache), (ids[9:], other)])
        assert (got[0] == whole[-1]).all() and (got[1] == whole[-1]).all()


def test_memory_by_hand(zoo_model: Build) -> None:
    """34 bytes for 32 numbers; what an indexer keeps besides stays in float16."""
    model = ref_engine.load(zoo_model("llama-dense", SPECS), cache_type="q8_0")
    a = model.spec.layers[0].mixer
    assert isinstance(a, AttentionSpec)
    row = 2 * a.n_head_kv * a.head_dim // 32 * 34
    assert cache_bytes(model.spec, 10, "q8_0") == 10 * model.spec.n_layer * row
    cache = model.new_cache(30)
    model.last_logits(list(range(30)), cache)
    assert cache.nbytes == 30 * model.spec.n_layer * row
    sparse = ref_engine.load(zoo_model("deepseek32-moe", SPECS), cache_type="q8_0").spec
    widths = sparse.layers[0].memory().rows
    assert widths == {"k": (1, 576), "index_k": (128,)}
    assert cache_bytes(sparse, 1, "q8_0") == sparse.n_layer * (576 // 32 * 34 + 2 * 128)


def test_a_model_that_keeps_nothing_loses_nothing(zoo_model: Build) -> None:
    """A diffusion model sees all tokens anew in each pass."""
    path = zoo_model("dream-dense", SPECS)
    models = [ref_engine.load(path, backend="numpy", cache_type=type) for type in ("f16", "q8_0")]  # type: ignore[arg-type]
    assert models[1].new_cache().type == "f16"
    assert (models[0].logits([3, 1, 4]) == models[1].logits([3, 1, 4])).all()


def test_rows_that_are_no_whole_blocks(zoo_model: Build) -> None:
    path = zoo_model("laguna-moe", SPECS)
    with pytest.raises(ref_engine.RefEngineError, match="'k' of layer 0: 80 numbers are not whole blocks of 32"):
        ref_engine.load(path, cache_type="q8_0")
    spec = ref_engine.load(path).spec
    with pytest.raises(ref_engine.RefEngineError, match="a q8_0 cache cannot hold"):
        Cache(spec, 4, "q8_0")


def test_types_are_checked(zoo_model: Build) -> None:
    path = zoo_model("llama-dense", SPECS)
    with pytest.raises(ref_engine.RefEngineError, match="cache_type is 'q4_0', expected one of f32, f16, q8_0"):
        ref_engine.load(path, cache_type="q4_0")  # type: ignore[arg-type]
    with pytest.raises(ref_engine.RefEngineError, match="the GPU has no cache of q8_0"):
        ref_engine.load(path, backend="cupy", cache_type="q8_0")
    assert ref_engine.load(path).cache_type == "f16"
    assert ref_engine.load(path, activations="f32").cache_type == "f32"
