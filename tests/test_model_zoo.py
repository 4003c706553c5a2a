"""Small models end to end: logits of llama.cpp and transformers, named intermediates, the same bits for any split."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ref_engine

Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]
Build = Callable[[str], Path]
GOLDEN = Path(__file__).parents[1] / "golden"
ZOO = sorted(p.stem for p in (GOLDEN / "zoo" / "specs").glob("*.json"))
HF = sorted(p.stem for p in (GOLDEN / "hf").glob("*.npz"))
N_CTX = {"llama-longrope-long": 1024}  # llama.cpp ran it with this much room, beyond the original context


@pytest.mark.parametrize("name", ZOO)
def test_logits_are_llama_cpps(name: str, zoo_model: Build, golden: Path, error: Nmse, ggml_gelu: None) -> None:
    """NMSE under 1e-9 at every position of the Llama models. Where GELU's table stands between, a last-bit difference
    before it can move its half-precision result by one step: there the median stays under 1e-9 and the worst position
    under 1e-8, or within ten times llama.cpp's distance from itself at another batch size."""
    data = np.load(golden / "zoo" / "logits" / f"{name}.npz")
    facts = json.loads((golden / "zoo" / "facts.json").read_text())["files"][f"logits/{name}.npz"]
    own_spread = facts["measured"]["own_spread_nmse"]
    model = ref_engine.load(zoo_model(name), backend="numpy", activations="f32", n_ctx=N_CTX.get(name))
    off = error(model.logits(data["tokens"]), data["logits"])
    if model.spec.layers[0].ffn.activation == "gelu":
        assert np.median(off) < max(1e-9, own_spread)
        assert off.max() < max(1e-8, 10 * own_spread)
    else:
        assert off.max() < 1e-9


def test_the_truth_in_float64_is_nearer_to_us_than_llama_cpp_is(zoo_model: Build, golden: Path, error: Nmse) -> None:
    """The same model written out once more in float64, with nothing of ours but the weights' values."""
    data = np.load(golden / "zoo" / "logits" / "llama-dense.npz")
    model = ref_engine.load(zoo_model("llama-dense"), backend="numpy", activations="f32")
    truth = llama_in_float64({n: w.f32().astype(np.float64) for n, w in model.weights.items()}, data["tokens"])
    ours, theirs = error(model.logits(data["tokens"]), truth), error(data["logits"], truth)
    assert ours.max() < 5e-10
    assert np.median(ours) < 1e-11 and np.median(theirs) < 1e-11


def llama_in_float64(w: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 9.999999747378752e-06) * weight

    angle = np.arange(len(ids))[:, None, None] * (10000.0 ** (-np.arange(64) / 64) / w["rope_freqs.weight"])
    seen = np.tril(np.ones((len(ids), len(ids)), bool))
    x = w["token_embd.weight"][ids]
    for i in range(2):
        layer = {n.removeprefix(f"blk.{i}."): v for n, v in w.items()}

        def map(x: np.ndarray, name: str, of: dict[str, np.ndarray] = layer) -> np.ndarray:
            return x @ of[f"{name}.weight"].T + of[f"{name}.bias"]

        h = norm(x, layer["attn_norm.weight"])
        q, k, v = (map(h, name).reshape(len(ids), 2, 128) for name in ("attn_q", "attn_k", "attn_v"))
        q, k = ((y[..., ::2] + 1j * y[..., 1::2]) * np.exp(1j * angle) for y in (q, k))
        scores = np.einsum("thd,shd->hts", q, k.conj()).real / np.sqrt(128)
        p = np.exp(np.where(seen, scores, -np.inf))
        mixed = np.einsum("hts,shd->thd", p / p.sum(-1, keepdims=True), v)
        x = x + map(mixed.reshape(len(ids), -1), "attn_output")
        h = norm(x, layer["ffn_norm.weight"])
        gate = map(h, "ffn_gate")
        x = x + map(gate / (1 + np.exp(-gate)) * map(h, "ffn_up"), "ffn_down")
    return norm(x, w["output_norm.weight"]) @ w["output.weight"].T


@pytest.mark.parametrize("name", HF)
def test_logits_and_layers_are_those_of_transformers(name: str, golden: Path, error: Nmse) -> None:
    data = np.load(golden / "hf" / f"{name}.npz")
    model = ref_engine.load(golden / "hf" / f"{name}.gguf", backend="numpy", activations="f32")
    with ref_engine.trace(model, "l_out-*", "result_norm") as t:
        logits = model.logits(data["tokens"])
    assert error(logits, data["logits"]).max() < 1e-9
    for i, want in enumerate(data["l_out"]):
        assert error(t[f"l_out-{i}"], want).max() < 1e-9
    assert error(t["result_norm"], data["result_norm"]).max() < 1e-9


@pytest.mark.parametrize("name", ["llama-dense", "gemma3-dense"])
def test_intermediates_are_llama_cpps_by_name(
    name: str, zoo_model: Build, golden: Path, error: Nmse, ggml_gelu: None
) -> None:
    data = np.load(golden / "zoo" / "nodes" / f"{name}.npz")
    model = ref_engine.load(zoo_model(name), backend="numpy", activations="f32")
    with ref_engine.trace(model) as t:
        model.logits(data["tokens"])
    # not ours: values before a name's last node, norms before their weight, and what is one step of ours
    theirs = {k for k in data if "#" not in k} - {"tokens", "index", "norm", "norm-0", "norm-1"}
    steps = {"ffn_up-0", "ffn_up-1", "ffn_gate-0", "ffn_gate-1", "ffn_down-0", "ffn_down-1"}
    assert theirs - set(t) <= steps
    assert len(theirs & set(t)) > 30
    for key in theirs & set(t):
        want = data[key]
        assert t[key].shape == want.shape, key
        if key.startswith("kq-"):  # entries that no token sees are computed and then not used
            seen = np.tril(np.ones(want.shape[-2:], bool))
            off = error(t[key][:, seen], want[:, seen])
        else:
            off = error(t[key], want)
        assert np.median(off) < 1e-9 and off.max() < 1e-8, key


@pytest.mark.parametrize("name", ["llama-dense", "llama-gqa", "gemma3-pattern-scalar", "llama-longrope-short"])
@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_any_split_of_a_prompt_gives_the_same_bits(name: str, chunk: int, zoo_model: Build, golden: Path) -> None:
    ids = np.load(golden / "zoo" / "logits" / f"{name}.npz")["tokens"][:48]
    model = ref_engine.load(zoo_model(name), backend="numpy", activations="q8")
    whole, cache = model.logits(ids), model.new_cache()
    split = [model.forward(ids[i : i + chunk], cache) for i in range(0, len(ids), chunk)]
    assert (np.concatenate(split) == whole).all()


def test_a_cache_cut_back_goes_on_as_if_nothing_had_been(zoo_model: Build) -> None:
    model = ref_engine.load(zoo_model("gemma3-pattern-scalar"), backend="numpy", activations="q8")
    cache = model.new_cache()
    model.forward(range(30), cache)
    cache.truncate(10)
    again = model.forward(range(50, 60), cache)
    assert (again == model.logits([*range(10), *range(50, 60)])[10:]).all()


def test_a_longrope_model_keeps_one_set_of_factors(zoo_model: Build, golden: Path, error: Nmse) -> None:
    """Short factors within the original 32 tokens unless there is room for more; a longer prompt has the long ones."""
    data = np.load(golden / "hf" / "llama-longrope.npz")
    path = golden / "hf" / "llama-longrope.gguf"
    model = ref_engine.load(path, backend="numpy", activations="f32")
    assert (model.spec.n_ctx, model.spec.n_ctx_most) == (32, 256)
    with pytest.raises(ref_engine.ContextFull):
        model.forward(data["tokens"], model.new_cache())
    roomy = ref_engine.load(path, backend="numpy", activations="f32", n_ctx=256)
    long, short = roomy.logits(data["tokens"][:20]), model.logits(data["tokens"][:20])
    assert error(long, data["logits"][:20]).max() < 1e-9 < error(short, data["logits"][:20]).max()
