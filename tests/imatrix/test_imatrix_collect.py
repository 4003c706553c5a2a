"""Importance matrices that we compute, against llama-imatrix's and against arithmetic by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine.errors import ModelError, RefEngineError
from ref_engine.files.types import GGMLType
from ref_engine.imatrix import read_imatrix
from ref_engine.imatrix.collect import Sums, chunks_of, collect
from ref_engine.mixture import FILE_TYPES
from ref_engine.quantize_file import quantize_file
from ref_engine.weights import Weight

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-moe as float32, so that nothing but float32 rounding can differ."""
    path = tmp_path_factory.mktemp("imatrix") / "m.gguf"
    quantize_file(GOLDEN / "models" / "tiny-moe.gguf", path, FILE_TYPES["F32"], allow_requantize=True)
    return path


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_as_llama_imatrix_measures(float_model: Path, backend: str) -> None:
    """The same names, counts of tokens for each expert, and sums within an NMSE of 1e-10 for each entry."""
    model = ref_engine.load(float_model, backend=backend, activations="f32")
    ids = model.tokenize((GOLDEN / "real" / "page.txt").read_text().removesuffix("\n"), parse_special=False)
    bos = next(iter(model.tokenizer.added_before), None)
    told: list[int] = []
    found = collect(model, chunks_of(ids, 64, bos, most=8), dataset="page.txt", advance=told.append)
    want = read_imatrix(GOLDEN / "imatrix" / "tiny-moe.gguf")
    assert sum(told) == 512 and (found.n_chunks, found.chunk_size) == (want.n_chunks, want.chunk_size)
    assert sorted(found.entries) == sorted(want.entries) and list(found.datasets) == list(want.datasets)
    for name, entry in want.entries.items():
        got = found.entries[name]
        assert np.array_equal(got.counts, entry.counts), name
        error = ((got.sums.astype(np.float64) - entry.sums) ** 2).sum() / (entry.sums.astype(np.float64) ** 2).sum()
        assert error < 1e-10, (name, error)


def test_watching_changes_nothing(float_model: Path) -> None:
    model = ref_engine.load(float_model, backend="numpy", activations="q8")
    before, ops = model.logits([5, 6, 7, 8]), model.ops
    matrix = collect(model, [[5, 6, 7, 8]], process_output=True)
    assert model.ops is ops and np.array_equal(model.logits([5, 6, 7, 8]), before)
    assert not [name for name in matrix.entries if not name.startswith("blk.")]  # its output is its embedding


def test_an_output_matrix_of_its_own(zoo_model: Callable[[str], Path]) -> None:
    model = ref_engine.load(zoo_model("llama-dense"), backend="numpy", activations="f32")
    assert "output.weight" in model.weights
    assert "output.weight" not in collect(model, [[1, 2, 3]]).entries
    with ref_engine.trace(model, "result_norm") as seen:
        entry = collect(model, [[1, 2, 3]], process_output=True).entries["output.weight"]
    assert entry.counts.tolist() == [3]
    np.testing.assert_allclose(entry.sums, (seen["result_norm"].astype(np.float64) ** 2).sum(0), rtol=1e-6)


def test_the_gate_of_a_shared_expert(zoo_model: Callable[..., Path]) -> None:
    """It reads what the shared expert reads, as llama.cpp's collector sees it: 20 tokens, 3 of 8 experts each."""
    model = ref_engine.load(zoo_model("qwen2moe-moe", "architectures/specs"), backend="numpy", activations="f32")
    entries = collect(model, [list(range(20))]).entries
    gate, up = (entries[f"blk.0.ffn_{name}_shexp.weight"] for name in ("gate_inp", "up"))
    assert np.array_equal(gate.sums, up.sums) and gate.counts.tolist() == [20]
    experts = entries["blk.0.ffn_down_exps.weight"]
    assert experts.counts.size == 8 and experts.counts.sum() == 20 * 3


def weight(name: str, shape: tuple[int, ...]) -> Weight:
    return Weight(name, GGMLType.F32, shape, np.zeros(4 * int(np.prod(shape)), np.uint8))


def test_sums_by_hand() -> None:
    shapes = {"blk.0.a.weight": (3, 2), "blk.0.b.weight": (2, 3, 2), "blk.0.c.weight": (2, 3, 2)}
    sums = Sums(lambda name: name.startswith("blk."), shapes)
    sums.add(np.array([[1, 2], [3, -4]], np.float32), [weight("blk.0.a.weight", (3, 2))])
    stack = weight("blk.0.b.weight", (2, 3, 2))
    sums.add(np.array([[2, 5]], np.float32), [stack.expert(1)], by_expert=True)
    heads = weight("blk.0.c.weight", (2, 3, 2))  # a stack that every token passes has one count
    for h in range(2):
        sums.add(np.array([[1, h], [2, h]], np.float32), [heads.expert(h)])
    found = sums.entries()
    assert found["blk.0.a.weight"].sums.tolist() == [10, 20] and found["blk.0.a.weight"].counts.tolist() == [2]
    assert found["blk.0.b.weight"].sums.tolist() == [0, 0, 4, 25]
    assert found["blk.0.c.weight"].sums.tolist() == [5, 0, 5, 2] and found["blk.0.c.weight"].counts.tolist() == [2]
    assert found["blk.0.b.weight"].counts.tolist() == [0, 1] and found["blk.0.b.weight"].n_unused == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_inputs_that_are_not_finite(value: float) -> None:
    sums = Sums(lambda name: True, {"a.weight": (3, 2)})
    sums.add(np.array([[1, value]], np.float32), [weight("a.weight", (3, 2))])
    with pytest.raises(ModelError, match=r"tensor a\.weight"):
        sums.entries()


def test_chunks_by_hand() -> None:
    ids = list(range(10))
    assert chunks_of(ids, 3, None) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert chunks_of(ids, 4, 99) == [[99, 1, 2, 3], [99, 5, 6, 7]]
    assert chunks_of(ids, 3, None, skip=1, most=1) == [[3, 4, 5]]
    with pytest.raises(RefEngineError, match="10 tokens, and chunk 1 of 11"):
        chunks_of(ids, 11, None)
