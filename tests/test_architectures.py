"""Every architecture end to end: llama.cpp's logits of a given model and of a drawn variant of it, the same bits for
any split of the tokens, in any company and after going back, and the same on the compiled kernels.

docs/make_architectures.py measures all of this once more for the table in docs/architectures.md.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine.archs import FAMILIES
from ref_engine.compat import has_kernels
from ref_engine.mixture import FILE_TYPES
from ref_engine.quantize_file import quantize_file

Build = Callable[[str, str], Path]
FOLDER = Path(__file__).parents[1] / "golden" / "architectures"
GIVEN = sorted(path.stem for path in (FOLDER / "specs").glob("*.json"))
DRAWN = sorted(path.stem for path in (FOLDER / "variants").glob("*.json"))
MEASURED = {
    name: entry.get("measured", {}) for name, entry in json.loads((FOLDER / "facts.json").read_text())["files"].items()
}


def nmse(got: np.ndarray, want: np.ndarray) -> float:
    got, want = got.astype(np.float64), want.astype(np.float64)
    return float(((got - want) ** 2).sum() / (want**2).sum())


def test_every_architecture_is_here() -> None:
    names = {
        value for path in (FOLDER / "specs").glob("*.json") for key, _, value in json.loads(path.read_text())["kv"]
        if key == "general.architecture"
    }  # fmt: skip
    assert len(GIVEN) == len(DRAWN) == 128 and names == set(FAMILIES)


@pytest.mark.parametrize(("name", "folder"), [(n, "specs") for n in GIVEN] + [(n, "variants") for n in DRAWN])
def test_logits_are_llama_cpps(name: str, folder: str, zoo_model: Build, ggml_gelu: None) -> None:
    """NMSE under 1e-9, or within ten times llama.cpp's distance from itself when it takes the tokens one by one.

    With ggml's half-precision GELU: how far the definition is from that is in docs/architectures.md."""
    logits = f"{'logits' if folder == 'specs' else folder}/{name}.npz"
    data = np.load(FOLDER / logits)
    model = ref_engine.load(zoo_model(name, f"architectures/{folder}"), backend="numpy", activations="f32")
    limit = max(1e-9, 10 * MEASURED.get(logits, {}).get("own_spread_nmse", 0))
    assert nmse(model.logits(data["tokens"]), data["logits"]) < limit


@pytest.mark.parametrize("name", DRAWN)
def test_same_bits_for_any_split(name: str, zoo_model: Build) -> None:
    """At once, in parts, beside another sequence, after going back, and from a copy; a model whose tokens see later
    ones has the same last row."""
    model = ref_engine.load(zoo_model(name, "architectures/variants"), backend="numpy", activations="q8")
    ids = np.load(FOLDER / "variants" / f"{name}.npz")["tokens"][:26].tolist()
    whole, cache = model.logits(ids), model.new_cache(model.spec.n_ctx_most)
    parts = [model.forward(ids[a:b], cache) for a, b in ((0, 1), (1, 8), (8, 9), (9, 26))]
    from_row = 0 if model.spec.causal else -1
    assert (np.concatenate(parts)[from_row:] == whole[from_row:]).all()

    cache.truncate(11)
    other = model.new_cache(model.spec.n_ctx_most)
    model.forward(ids[3:6], other)
    here, there = model.step([(ids[11:], cache), (ids[6:20], other)])
    assert (here == whole[-1]).all()
    assert (there == model.last_logits(ids[3:20], model.new_cache(model.spec.n_ctx_most))).all()

    for n in (19, 25):  # whatever was there; the original goes on by itself
        other.take(cache, n)
        assert (model.last_logits(ids[n:], other) == whole[-1]).all()
    assert cache.n_past == 26
    assert (model.last_logits([1], cache) == model.last_logits([1], other)).all()


@pytest.mark.skipif(not has_kernels, reason="without kernels this does not apply")
@pytest.mark.parametrize("name", DRAWN)
def test_kernels_agree(name: str, zoo_model: Build, tmp_path: Path) -> None:
    """Quantised to Q8_0 the same bits in q8 mode; in f32 mode NMSE under 1e-8."""
    path = zoo_model(name, "architectures/variants")
    ids = np.load(FOLDER / "variants" / f"{name}.npz")["tokens"][:12]
    quantize_file(path, tmp_path / "q8_0.gguf", FILE_TYPES["Q8_0"])
    models = {
        (file, backend): ref_engine.load(file, backend=backend, activations=mode, n_threads=1)
        for file, mode in ((path, "f32"), (tmp_path / "q8_0.gguf", "q8"))
        for backend in ("numpy", "native")
    }
    logits = {key: model.logits(ids) for key, model in models.items()}
    assert nmse(logits[path, "native"], logits[path, "numpy"]) < 1e-8
    q8 = tmp_path / "q8_0.gguf"
    assert (logits[q8, "native"] == logits[q8, "numpy"]).all()
