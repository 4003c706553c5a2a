"""The small mixture of experts of golden/models: its file, its tokenizer and what is told of its routing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ref_engine.files.gguf import open_gguf
from ref_engine.files.types import GGMLType
from ref_engine.text.tokenizer import load_tokenizer

KINDS = ["python", "c", "docs", "tables", "verse", "spanish", "russian"]
N_LAYER, N_EXPERT, N_USED = 4, 8, 2


@pytest.fixture(scope="module")
def folder(golden: Path) -> Path:
    return golden / "models"


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "tiny-moe.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def data(folder: Path) -> Any:
    with np.load(folder / "tiny-moe.npz") as found:
        return dict(found)


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.maximum(p, 1e-12))).sum(-1)


def test_file_is_small_and_a_mixture(folder: Path, facts: dict[str, Any]) -> None:
    path = folder / "tiny-moe.gguf"
    assert path.stat().st_size <= 6_000_000
    with open_gguf(path) as file:
        arch = file.metadata["general.architecture"]
        counts = [file.metadata[f"{arch}.{key}"] for key in ("block_count", "expert_count", "expert_used_count")]
        assert counts == [N_LAYER, N_EXPERT, N_USED]
        assert 2e6 < sum(np.prod(t.shape) for t in file.tensors.values()) == facts["parameters"] < 4e6
        for name, tensor in file.tensors.items():
            exact = len(tensor.shape) == 1 or "ffn_gate_inp" in name
            assert tensor.type == (GGMLType.F32 if exact else GGMLType.Q8_0), name


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_llama_cpps(kind: str, folder: Path, facts: dict[str, Any], data: Any) -> None:
    """The golden has the first ids of each text."""
    tokenizer = load_tokenizer(folder / "tiny-moe.gguf")
    text, wanted = facts["texts"][kind], data[f"{kind}/ids"].tolist()
    ids = tokenizer.encode(text)
    assert ids[: len(wanted)] == wanted
    assert tokenizer.decode(ids[1:]) == text


@pytest.mark.parametrize("kind", KINDS)
def test_golden_routing_is_top_2_of_softmax(kind: str, data: Any) -> None:
    """llama.cpp's own tensors hold the formula: the two best of a softmax, scaled to sum 1."""
    for layer in range(N_LAYER):
        probs, chosen = data[f"{kind}/probs-{layer}"].astype(np.float64), data[f"{kind}/topk-{layer}"]
        np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-6)
        assert (chosen == np.argsort(-probs, axis=-1, kind="stable")[:, :N_USED]).all()
        best = np.take_along_axis(probs, chosen, -1)
        np.testing.assert_allclose(data[f"{kind}/weights-{layer}"], best / best.sum(-1, keepdims=True), rtol=1e-5)


def test_experts_differ_by_kind_and_none_is_idle(facts: dict[str, Any]) -> None:
    """Mutual information of expert and kind from the loads, by its definition; entropies against uniform."""
    kinds = facts["held_out"]["kinds"]
    assert list(kinds) == KINDS
    load = np.array([kinds[kind]["expert_load"] for kind in KINDS])  # (K, L, E)
    np.testing.assert_allclose(load.sum(-1), 1, atol=1e-3)
    mean, uniform = load.mean(0), np.log(N_EXPERT)
    told = entropy(mean) - entropy(load).mean(0)
    np.testing.assert_allclose(told, facts["routing"]["mutual_information_kind_expert_per_layer"], atol=1e-3)
    assert told.min() > 0.2 and told.mean() > 0.5  # the first layer goes by the token more than by the kind of text
    assert mean.min() > 0.05
    doubt = np.array([kinds[kind]["router_entropy_per_layer"] for kind in KINDS])
    assert doubt.mean() < 0.75 * uniform


def test_loss_fell_and_is_far_below_guessing(facts: dict[str, Any]) -> None:
    curve = [point["nats_per_token"] for point in facts["training"]["curve"]]
    assert curve[-1] < 0.5 * curve[0]
    assert facts["held_out"]["nats_per_token"] < 0.5 * np.log(facts["training"]["config"]["n_vocab"])
