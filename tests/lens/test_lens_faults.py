"""Faults planted in a copy of the NumPy backend, each named at its tensor with its cause."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ref_engine
from ref_engine.lens.compare import Comparison, compare
from ref_engine.lens.dump import Dump
from ref_engine.lens.record import as_dump, facts_of, record
from ref_engine.lens.selection import Selection
from ref_engine.mixture import FILE_TYPES
from ref_engine.model import Model
from ref_engine.quantize_file import quantize_file
from ref_engine.reference import moe as moe_layer

Build = Callable[..., Path]
IDS = [5, 17, 42, 3, 88, 64, 9, 23, 71, 50, 12, 31]


def dump(model: Model, folder: Path, ids: list[int] = IDS) -> Dump:
    folder.mkdir()
    files = record(model, ids, Selection(), folder)
    return as_dump(folder.name, files, facts_of(model, ids, Selection(), fine=True))


def held(good: Model, bad: Model, tmp_path: Path) -> Comparison:
    return compare(dump(good, tmp_path / "good"), dump(bad, tmp_path / "bad"))


def two(path: Path, activations: str) -> tuple[Model, Model]:
    good, bad = (ref_engine.load(path, backend="numpy", activations=activations) for _ in range(2))
    return good, bad


@pytest.mark.parametrize("activations", ["f32", "q8"])
def test_rope_pairing_swapped_in_layer_1(activations: str, golden: Path, tmp_path: Path) -> None:
    good, bad = two(golden / "hf" / "llama-untied.gguf", activations)
    calls = []

    def rope(x: Any, cos: Any, sin: Any, pairing: str) -> Any:
        calls.append(pairing)
        return good.ops.rope(x, cos, sin, "halves" if len(calls) in (3, 4) else pairing)

    bad.ops = replace(bad.ops, rope=rope)
    found = held(good, bad, tmp_path)
    assert calls == ["adjacent"] * 4
    assert found.first is not None and found.first.name == "Qcur-1"
    assert found.cause is not None and found.cause.kind == "rope pairing"
    assert "halves" in found.cause.text.split(", A")[0]


@pytest.mark.parametrize(("by", "tensor"), [(1, "ffn_up"), (-1, "attn_q"), (1, "ffn_gate")])
def test_a_scale_of_a_q6_k_block_off_by_one(by: int, tensor: str, zoo_model: Build, tmp_path: Path) -> None:
    """One of the 16 scales of one block of 256 weights: 16 weights of one row, each wrong by a percent or so."""
    path, row, block_bytes = tmp_path / "good.gguf", 37, 210
    quantize_file(zoo_model("llama-dense"), path, FILE_TYPES["Q6_K"])
    weight = f"blk.1.{tensor}.weight"
    with ref_engine.files.gguf.open_gguf(path) as file:
        info = file.tensors[weight]
        assert info.type.name == "Q6_K"
        at = path.read_bytes().index(file.data(weight).tobytes())
        blocks = info.shape[-1] // 256
    data = bytearray(path.read_bytes())
    scale = at + row * blocks * block_bytes + 192 + 5
    data[scale] = (data[scale] + by) % 256
    (tmp_path / "bad.gguf").write_bytes(data)
    good, bad = (ref_engine.load(p, backend="numpy", activations="f32") for p in (path, tmp_path / "bad.gguf"))
    found = held(good, bad, tmp_path)
    assert found.first is not None and found.cause is not None
    expected = {"ffn_up": "ffn_up_b-1", "attn_q": "Qcur-1", "ffn_gate": "ffn_gate_b-1"}[tensor]
    assert found.first.name == expected
    assert found.cause.kind == "few units"
    assert f" {row}" in found.cause.text


@pytest.mark.parametrize("name", ["dots1-moe", "glm4moe-moe", "afmoe-moe"])
@pytest.mark.parametrize("activations", ["f32", "q8"])
def test_experts_chosen_without_the_bias(name: str, activations: str, zoo_model: Build, tmp_path: Path) -> None:
    good, bad = two(zoo_model(name, "architectures/specs"), activations)
    layer = next(i for i, spec in enumerate(good.spec.layers) if getattr(spec.ffn, "routing", None) is not None)

    def route(logits: Any, n_used: int, r: Any, bias: Any = None, given: Any = None, tap: Any = None) -> Any:
        chosen = moe_layer.ranking(moe_layer.GATES[r.gate](logits))[:, :n_used]
        return moe_layer.route(logits, n_used, r, bias, chosen, tap)

    bad.ops = replace(bad.ops, route=route)
    found = held(good, bad, tmp_path)
    assert found.first is not None and found.cause is not None
    assert found.first.name == f"ffn_moe_topk-{layer}"
    assert found.cause.kind == "router choice" and "ffn_moe_probs, A's by ffn_moe_probs_biased" in found.cause.text


@pytest.mark.parametrize(
    ("keys", "values", "kind"), [(1, 1, "kv position"), (1, 0, "kv position"), (0, 1, "kv position")]
)
def test_keys_and_values_kept_one_position_off(keys: int, values: int, kind: str, golden: Path, tmp_path: Path) -> None:
    good, bad = two(golden / "hf" / "llama-untied.gguf", "f32")

    def late(x: Any, by: int) -> Any:
        return np.concatenate([np.zeros_like(x[:by]), x[: x.shape[0] - by]])

    def attend(q: Any, k: Any, v: Any, positions: Any, **rest: Any) -> Any:
        return good.ops.attend(q, late(k, keys), late(v, values), positions, **rest)

    bad.ops = replace(bad.ops, attend=attend)
    found = held(good, bad, tmp_path)
    assert found.first is not None and found.cause is not None
    assert found.first.name == ("kq-0" if keys else "kqv-0")
    assert found.cause.kind == kind


def test_a_mask_one_position_off(golden: Path, tmp_path: Path) -> None:
    good, bad = two(golden / "hf" / "llama-untied.gguf", "f32")
    bad.ops = replace(
        bad.ops, attend=lambda q, k, v, positions, **rest: good.ops.attend(q, k, v, positions + 1, **rest)
    )
    found = held(good, bad, tmp_path)
    assert found.first is not None and found.cause is not None
    assert found.first.name == "kq_soft_max-0" and found.cause.kind == "mask"
    assert "sees the key after its own" in found.cause.text


def test_keys_turned_by_the_next_position(golden: Path, tmp_path: Path) -> None:
    good, bad = two(golden / "hf" / "llama-untied.gguf", "f32")
    calls = []

    def rope(x: Any, cos: Any, sin: Any, pairing: str) -> Any:
        calls.append(1)
        if len(calls) % 2:
            return good.ops.rope(x, cos, sin, pairing)
        angle = np.arctan2(sin, cos) + np.arctan2(sin[1], cos[1])
        return good.ops.rope(x, np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32), pairing)

    bad.ops = replace(bad.ops, rope=rope)
    found = held(good, bad, tmp_path)
    assert found.first is not None and found.cause is not None
    assert (found.first.name, found.cause.kind) == ("Kcur-0", "rope position")
    assert "+1" in found.cause.text


def test_rounding_by_design_is_no_fault(zoo_model: Build, tmp_path: Path) -> None:
    path = tmp_path / "q4.gguf"
    quantize_file(zoo_model("llama-dense"), path, FILE_TYPES["Q4_0"])
    exact = dump(ref_engine.load(path, backend="numpy", activations="f32"), tmp_path / "exact")
    rounded = dump(ref_engine.load(path, backend="numpy", activations="q8"), tmp_path / "rounded")
    usual = compare(exact, rounded)
    assert usual.clean and usual.tolerance.by_design
    strict = compare(exact, rounded, given=1e-9)
    assert strict.first is not None and strict.cause is not None
    assert strict.first.name in ("Qcur-0", "Kcur-0", "Vcur-0")
    assert strict.cause.kind == "quantised activations"
