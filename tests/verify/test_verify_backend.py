"""A backend as what is verified: sound ones pass, a fault planted in one shows as exactly the cases that hold it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from ref_engine.backends import numpy_ops
from ref_engine.compat import has_kernels
from ref_engine.errors import RefEngineError
from ref_engine.files.gguf import open_gguf
from ref_engine.files.types import GGMLType
from ref_engine.ops import Ops
from ref_engine.reference.linear import Activations
from ref_engine.verify.case import Case, same_bits, within
from ref_engine.verify.engines.ours import Backend, backend_of
from ref_engine.verify.golden import Golden, GoldenError, find_golden
from ref_engine.verify.packs import rope, sampling, text
from ref_engine.verify.run import Result, choose, run_case, run_cases
from ref_engine.verify.suite import backend_suite
from ref_engine.weights import Weight

BACKENDS = ["numpy", *(["native"] if has_kernels else [])]
F32 = np.float32


@pytest.fixture(scope="module")
def data(golden: Path) -> Golden:
    return find_golden(golden)


def planted(change: Callable[[Ops], Ops]) -> Backend:
    """The readable backend with a fault."""

    def make(mode: Activations) -> Ops:
        return change(numpy_ops(mode, 1))

    return Backend("planted", make)


def run(data: Golden, backend: Backend, scratch: Path, *patterns: str) -> list[Result]:
    return list(run_cases(choose(backend_suite(data, backend, scratch), patterns)))


def failures(results: list[Result]) -> dict[str, str]:
    return {r.case.id: r.finding.message for r in results if r.status == "failed"}


# -- sound ones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
def test_a_sound_backend_passes(name: str, data: Golden, tmp_path: Path) -> None:
    backend = backend_of(name, ("f32", "q8"), 1)
    wanted = ["ops/*", "quant/Q?_K/*", "quant/IQ4_XS/*", "quant/MXFP4/*", "hf/*", "experts/*", "zoo/*-dense/*"]
    results = run(data, backend, tmp_path, *wanted)
    assert failures(results) == {}
    kinds = {result.case.operation for result in results}
    assert kinds >= {"rms_norm", "layer_norm", "activation", "soft_cap", "glu", "linear", "attend", "rope", "embed"}
    assert kinds >= {"quantize", "rounding", "logits", "intermediates"}


def test_what_does_not_depend_on_a_backend_passes(data: Golden) -> None:
    """The rest of it is in tests/text and tests/sample."""
    cases = [*rope.cases(data), *sampling.cases(data), *text.cases(data)]
    chosen = ["rope/*", "sampling/*", "tokenizers/bpe/pre-gpt-2/*", "tokenizers/other/small-spm*", "chat/own/*"]
    results = list(run_cases(choose(cases, chosen)))
    assert failures(results) == {} and len(results) > 60


def test_ids_stay(data: Golden, tmp_path: Path) -> None:
    """Reports of different days are compared by them."""
    ids = {case.id for case in backend_suite(data, backend_of("numpy", ("f32", "q8")), tmp_path)}
    assert ids >= {
        "ops/rms_norm_rows_1e-05/f32",
        "ops/rope_neox_yarn/q8",
        "quant/Q6_K/dequantize",
        "quant/IQ2_XXS/product/q8",
        "quant/Q4_K/quantize/weighted",
        "quant/Q8_K/activations",
        "rope/llama3_8b/table",
        "zoo/llama-dense/logits",
        "zoo/llama-dense/nodes",
        "experts/experts-384/nodes",
        "models/tiny-moe/python/logits",
        "real/smollm2/logits/f32",
        "real/gemma3/perplexity/q8",
        "tokenizers/vocabs/ggml-vocab-qwen2/ids",
        "chat/own/state",
        "sampling/filters/top_p",
    }
    assert len(ids) > 700


# -- faults ---------------------------------------------------------------------------------------------------------


def flipped_mins(weight: Weight) -> Weight:
    """Q4_K with the sign of `dmin` (the second float16 of a block) turned."""
    if weight.type is not GGMLType.Q4_K:
        return weight
    blocks = weight.data.reshape(-1, 144).copy()
    blocks[:, 3] ^= 0x80
    return Weight(weight.name, weight.type, weight.shape, blocks.reshape(-1))


def test_a_sign_in_products_of_one_type(data: Golden, tmp_path: Path) -> None:
    def change(ops: Ops) -> Ops:
        return replace(ops, linear=lambda x, w, bias=None: ops.linear(x, flipped_mins(w), bias))

    found = failures(run(data, planted(change), tmp_path, "quant/*", "ops/*"))
    assert set(found) == {"quant/Q4_K/product/f32", "quant/Q4_K/product/q8"}
    assert "nmse" in found["quant/Q4_K/product/q8"] and "worst at [" in found["quant/Q4_K/product/q8"]


def test_a_sign_in_the_values_of_one_type(data: Golden, tmp_path: Path) -> None:
    def change(ops: Ops) -> Ops:
        return replace(ops, embed=lambda ids, w: ops.embed(ids, flipped_mins(w)))

    found = failures(run(data, planted(change), tmp_path, "quant/*", "ops/*"))
    assert set(found) == {"quant/Q4_K/dequantize"}
    assert "values differ, first at [" in found["quant/Q4_K/dequantize"]


def test_the_other_pairing_of_rope(data: Golden, tmp_path: Path) -> None:
    other: dict[Any, Any] = {"adjacent": "halves", "halves": "adjacent"}

    def change(ops: Ops) -> Ops:
        return replace(ops, rope=lambda x, cos, sin, pairing: ops.rope(x, cos, sin, other[pairing]))

    results = run(data, planted(change), tmp_path, "ops/*", "hf/llama-untied/logits", "zoo/llama-dense/nodes")
    ropes = {result.case.id for result in results if result.case.operation == "rope"}
    assert len(ropes) == 22
    found = failures(results)
    assert set(found) == {*ropes, "hf/llama-untied/logits", "zoo/llama-dense/nodes"}
    assert found["zoo/llama-dense/nodes"].startswith("Qcur-0: ")


def test_attention_that_sees_one_key_too_many(data: Golden, tmp_path: Path) -> None:
    def change(ops: Ops) -> Ops:
        def attend(q: Any, k: Any, v: Any, positions: Any, **rest: Any) -> Any:
            return ops.attend(q, k, v, positions + 1, **rest)

        return replace(ops, attend=attend)

    found = failures(run(data, planted(change), tmp_path, "ops/*"))
    assert set(found) == {"ops/soft_max_masked/f32", "ops/soft_max_masked/q8"}


def test_one_last_bit_in_q8_mode(data: Golden, tmp_path: Path) -> None:
    """Within every tolerance, and yet not the bits that the definition asks for."""

    def change(ops: Ops) -> Ops:
        def rms_norm(*args: Any) -> Any:
            y = ops.rms_norm(*args)
            y[0, 0] = np.nextafter(y[0, 0], F32(np.inf))
            return y

        return replace(ops, rms_norm=rms_norm)

    results = run(data, planted(change), tmp_path, "zoo/llama-dense/*", "ops/rms_norm*")
    assert set(failures(results)) == {"zoo/llama-dense/bits"}


def test_an_operation_that_raises_or_has_another_shape(data: Golden, tmp_path: Path) -> None:
    def broken(*args: Any, **named: Any) -> Any:
        raise IndexError("lane 17")

    change = {
        "rms_norm": broken,
        "layer_norm": lambda x, w, b, eps: x[:, :-1],
        "glu": lambda gate, up, name, c=(): gate * F32(np.nan),
    }
    found = failures(run(data, planted(lambda ops: replace(ops, **change)), tmp_path, "ops/*/f32"))
    assert found["ops/rms_norm_rows_1e-05/f32"] == "IndexError: lane 17"
    assert found["ops/norm_rows_1e-05/f32"].startswith("ValueError")
    assert "nmse inf" in found["ops/swiglu_split/f32"]
    assert {id.split("_")[0] for id in found} == {"ops/rms", "ops/norm", "ops/swiglu", "ops/geglu"}


# -- golden data ----------------------------------------------------------------------------------------------------


def test_a_changed_golden_judges_nothing(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "ops").mkdir()
    shutil.copy(golden / "manifest.json", tmp_path)
    for name in ("vec_dot", "graph", "dequantize", "activations"):
        shutil.copy(golden / "ops" / f"{name}.npz", tmp_path / "ops")
    data = find_golden(tmp_path)
    assert data.npz("ops/graph.npz")
    raw = bytearray((tmp_path / "ops/graph.npz").read_bytes())
    raw[1000] ^= 1
    (tmp_path / "ops/graph.npz").write_bytes(raw)
    with pytest.raises(GoldenError, match=r"graph\.npz: its sha256 is [0-9a-f]{64}, the manifest says [0-9a-f]{64}"):
        data.npz("ops/graph.npz")
    with pytest.raises(GoldenError, match=r"quantize\.npz: No such file"):
        data.npz("quant/quantize.npz")
    with pytest.raises(GoldenError, match=r"lists no ops/none\.npz"):
        data.npz("ops/none.npz")


def test_a_golden_that_is_gone_ends_the_run(data: Golden) -> None:
    def gone() -> Any:
        raise GoldenError("gone")

    with pytest.raises(GoldenError):
        run_case(Case("a/b", "c", "", gone))


@pytest.mark.parametrize("text", [None, "[]", '{"files": 3}', '{"files": {"a": 1}}', "nonsense"])
def test_a_folder_that_holds_no_golden_data(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(GoldenError, match=r"manifest\.json"):
        find_golden(tmp_path)


@pytest.mark.parametrize("name", ["specs/gemma3-softcap", "specs/llama-longrope-long"])
def test_models_are_rebuilt_as_by_their_generator(
    name: str, data: Golden, zoo_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Keys with their types and tensors with their bytes are those that the gguf package writes."""
    from ref_engine.verify.models import build_model

    build_model(data.json(f"zoo/{name}.json"), tmp_path / "ours.gguf")
    theirs = zoo_model(name.split("/")[1])
    with open_gguf(tmp_path / "ours.gguf") as a, open_gguf(theirs) as b:
        assert {k: a.types[k] for k in a.metadata} == {k: b.types[k] for k in b.metadata}
        assert {k: str(v) for k, v in a.metadata.items()} == {k: str(v) for k, v in b.metadata.items()}
        assert list(a.tensors) == list(b.tensors)
        for tensor in a.tensors:
            assert a.tensors[tensor].type == b.tensors[tensor].type
            assert (a.data(tensor) == b.data(tensor)).all(), tensor
    assert len(gguf.GGUFReader(str(tmp_path / "ours.gguf")).tensors) == len(gguf.GGUFReader(str(theirs)).tensors)


# -- choosing and judging ---------------------------------------------------------------------------------------------


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    cases = [Case("quant/Q4_K/dequantize", "embed", "Q4_K", lambda: within(np.ones(1), np.ones(1), 0))]
    assert choose(cases, ["quant/*"]) == cases
    with pytest.raises(RefEngineError, match=r"no case matches 'quant/q4_k/\*'"):
        choose(cases, ["quant/*", "quant/q4_k/*"])


def test_bits_and_nans() -> None:
    """Zeros of either sign are different bits; any NaN is any other."""
    assert same_bits(np.array([np.nan, 1], F32), np.array([-np.nan, 1], F32)).passed
    wrong = same_bits(np.array([[0, -0.0]], F32), np.array([[0, 0]], F32))
    assert not wrong.passed and wrong.message.startswith("1 of 2 values differ, first at [0, 1]")
    assert not same_bits(np.ones(2, np.float64), np.ones(2, F32)).passed
    assert same_bits(np.ones(2, F32), np.ones(3, F32)).message == "shape [2], expected [3]"


def test_nmse_by_hand() -> None:
    """(0.1² + 0) / (1 + 4): 0.002."""
    found = within(np.array([1.1, 2]), np.array([1.0, 2]), 1e-3)
    assert not found.passed and found.figures["nmse"] == pytest.approx(0.002)
    assert found.message == "nmse 0.002 > 0.001; worst at [0]: 1.1, expected 1"
    assert within(np.array([1.1, 2]), np.array([1.0, 2]), 2.1e-3).passed
