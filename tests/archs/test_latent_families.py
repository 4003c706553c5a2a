"""Families with latent attention and indexers: what their metadata mean, worked out by hand, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest

from ref_engine.archs import read_spec
from ref_engine.errors import ModelError
from ref_engine.spec import AttentionSpec, KdaSpec, LatentAttentionSpec, ModelSpec, MoeSpec, tensor_rules

COMMON: dict[str, Any] = {
    "vocab_size": 32,
    "context_length": 64,
    "embedding_length": 16,
    "block_count": 2,
    "leading_dense_block_count": 1,
    "feed_forward_length": 24,
    "expert_feed_forward_length": 8,
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_shared_count": 1,
    "expert_gating_func": 2,
    "attention.head_count": 3,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.q_lora_rank": 20,
    "attention.kv_lora_rank": 12,
    "attention.key_length": 16,
    "attention.value_length": 12,
    "attention.key_length_mla": 10,
    "attention.value_length_mla": 6,
    "rope.dimension_count": 4,
}
INDEXER = {"attention.indexer.head_count": 2, "attention.indexer.key_length": 8, "attention.indexer.top_k": 5}
WINDOWS = {
    "attention.sliding_window": 7,
    "attention.sliding_window_pattern": [False, True],
    "attention.indexer.types": [1, 0],
    "attention.kv_lora_rank_swa": 9,
    "attention.key_length_mla_swa": 14,
    "attention.value_length_mla_swa": 5,
    "rope.freq_base_swa": 500.0,
}
DELTA = {"attention.head_count_kv": [1, 0], "ssm.conv_kernel": 4, "kda.head_dim": 8, "kda.gate_lower_bound": -5.0}
BLOCKS = {
    "attention.head_count": 4, "attention.head_count_kv": 2, "attention.value_length": 16,
    "attention.indexer.block_size": 4, "attention.indexer.local_blocks": 1,
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "deepseek2": {},
    "mistral4": {},
    "deepseek32": INDEXER,
    "glm-dsa": INDEXER,
    "dots3note": INDEXER | WINDOWS,
    "kimi-linear": DELTA,
    "bailingmoe3": DELTA,
    "minimax-m3": INDEXER | BLOCKS,
    "minicpm3": {},
}
Q_A = ("blk.0.attn_q_a.weight",)


def read(arch: str, tensors: tuple[str, ...] = Q_A, **changes: Any) -> ModelSpec:
    """The spec of a small model; changes: keys with __ for a dot, None to leave one out."""
    keys = COMMON | MORE[arch] | {key.replace("__", "."): value for key, value in changes.items()}
    metadata = {f"{arch}.{key}": value for key, value in keys.items() if value is not None}
    return read_spec({"general.architecture": arch, **metadata}, tensors)


def latent(spec: ModelSpec, i: int = 0) -> LatentAttentionSpec:
    part = spec.layers[i].mixer
    assert isinstance(part, LatentAttentionSpec)
    return part


@pytest.mark.parametrize("arch", MORE)
def test_every_layer_knows_its_tensors(arch: str) -> None:
    spec = read(arch)
    rules = tensor_rules(spec)
    assert "blk.1.ffn_norm.weight" in rules and len(spec.layers) == 2
    assert ("blk.1.ffn_gate_inp.weight" in rules) == (arch != "minicpm3")


def test_scale_of_scores_under_yarn() -> None:
    """mscale_all_dim = 0.0707 / 0.1; scores times (1 + 0.1 mscale_all_dim ln 4)**2 / sqrt(10)."""
    yarn = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__yarn_log_multiplier": 0.0707}
    all_dim = 1 + 0.0707 * math.log(4)
    ds, mistral = latent(read("deepseek2", **yarn)), latent(read("mistral4", **yarn))
    assert ds.rope is not None and mistral.rope is not None
    assert ds.scale == pytest.approx(all_dim**2 / math.sqrt(10), rel=1e-6)
    assert ds.rope.magnitude == pytest.approx(1.0)
    magnitude = (1 + 0.1 * math.log(4)) / all_dim
    assert mistral.rope.magnitude == pytest.approx(magnitude, rel=1e-6)
    assert mistral.scale == pytest.approx((magnitude * all_dim) ** 2 / math.sqrt(10), rel=1e-6)


def test_linear_scaling_changes_the_scale_too() -> None:
    """As in llama.cpp, which divides by what YaRN would have put in although nothing did."""
    part = latent(read("deepseek2", rope__scaling__factor=4.0))
    assert part.rope is not None and part.rope.magnitude == 1
    assert part.scale == pytest.approx((1 + 0.1 * math.log(4)) ** 2 / math.sqrt(10))


def test_old_and_lite_files() -> None:
    part = latent(
        read(
            "deepseek2", (), attention__key_length_mla=None, attention__value_length_mla=None,
            attention__key_length=10, attention__value_length=6, attention__q_lora_rank=None,
        )
    )  # fmt: skip
    assert not part.absorbed and part.q_rank is None and (part.nope_dim, part.rope_dim, part.v_dim) == (6, 4, 6)
    rules = part.rules(16)
    assert rules["attn_kv_b.weight"].shape == (3 * (6 + 6), 12)
    assert rules["attn_q.weight"].shape == (30, 16)
    assert part.memory().rows == {"k": (3, 10), "v": (3, 6)}


def test_absorbed_files_keep_one_row_of_latent_and_rotated_features() -> None:
    part = latent(read("deepseek32"))
    assert part.memory().rows == {"k": (1, 12 + 4), "index_k": (8,)}
    rules = part.rules(16)
    assert rules["attn_k_b.weight"].shape == (3, 12, 6)
    assert rules["attn_v_b.weight"].shape == (3, 6, 12)
    assert rules["indexer.attn_q_b.weight"].shape == (2 * 8, 20)


def test_gate_where_the_file_names_none() -> None:
    for arch, more, gate in (
        ("deepseek2", {}, "softmax"),
        ("deepseek2", {"block_count": 47, "vocab_size": 154880}, "sigmoid"),
        ("glm-dsa", {}, "sigmoid"),
    ):
        part = read(arch, expert_gating_func=None, **more).layers[1].ffn
        assert isinstance(part, MoeSpec) and part.routing.gate == gate


def test_which_layers_of_glm_have_an_indexer() -> None:
    def indexed(**changes: Any) -> list[int]:
        layers = read("glm-dsa", block_count=8, **changes).layers
        parts = [layer.mixer for layer in layers if isinstance(layer.mixer, LatentAttentionSpec)]
        assert all(part.follows == (part.indexer is None) for part in parts)
        return [i for i, part in enumerate(parts) if part.indexer is not None]

    assert indexed() == list(range(8))
    assert indexed(context_length=1048576) == [0, 1, 2, 6]
    assert indexed(attention__indexer__types=np.array([1, 0, 0, 1, 0, 0, 0, 1])) == [0, 3, 7]


def test_indexers_turn_features_in_their_own_pairs() -> None:
    pairs = {arch: latent(read(arch)).indexer for arch in ("deepseek32", "glm-dsa", "dots3note")}
    assert {a: i.pairing for a, i in pairs.items() if i} == {
        "deepseek32": "halves", "glm-dsa": "adjacent", "dots3note": "halves",
    }  # fmt: skip


def test_layers_with_a_window_have_other_widths() -> None:
    spec = read("dots3note")
    whole, windowed = latent(spec, 0), latent(spec, 1)
    assert (whole.nope_dim, whole.v_dim, whole.kv_rank, whole.window) == (6, 6, 12, None)
    assert (windowed.nope_dim, windowed.v_dim, windowed.kv_rank, windowed.window) == (10, 5, 9, 7)
    assert windowed.indexer is None and not windowed.follows and whole.gated
    assert windowed.rope is not None and windowed.rope.base == 500 and windowed.scale == 1 / math.sqrt(14)


def test_hybrids_take_the_heads_of_the_first_layer() -> None:
    kimi, ling = read("kimi-linear"), read("bailingmoe3")
    for spec in (kimi, ling):
        delta = spec.layers[1].mixer
        assert isinstance(delta, KdaSpec) and delta.n_head == 3
    assert latent(kimi).rope is None and latent(ling).rope is not None and latent(ling).gated
    sections = latent(read("bailingmoe3", rope__dimension_sections=[1, 1, 0, 0])).rope
    assert sections is not None and sections.pairing == "halves" and sections.sections == (1, 1, 0, 0)


def test_blocks_are_chosen_behind_the_dense_layers() -> None:
    first, second = (layer.mixer for layer in read("minimax-m3").layers)
    assert isinstance(first, AttentionSpec) and first.index is None
    assert isinstance(second, AttentionSpec) and second.index is not None and second.index.n_head == 2
    assert second.memory().rows["index_k"] == (8,)


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("deepseek2", {"attention__value_length_mla": None}, "key_length_mla and value_length_mla"),
        ("deepseek2", {"rope__dimension_count": 10}, "rope.dimension_count is 10, expected an even number below"),
        ("deepseek2", {"rope__dimension_count": 3}, "rope.dimension_count is 3"),
        ("deepseek2", {"attention__temperature_scale": 0.1}, "temperature_length is 0"),
        ("deepseek32", {"attention__key_length_mla": None, "attention__value_length_mla": None}, "key_length_mla is"),
        ("deepseek32", {"attention__indexer__key_length": 12}, "indexer.key_length is 12, expected a power of two"),
        ("deepseek32", {"attention__indexer__key_length": 2}, "indexer.key_length is 2"),
        ("deepseek32", {"attention__indexer__top_k": 0}, "indexer.top_k is 0"),
        ("deepseek32", {"expert_gating_func": None}, "expert_gating_func is missing"),
        ("deepseek32", {"block_count": 2**31 - 1}, "block_count is 2147483647, expected at most"),
        ("glm-dsa", {"attention__indexer__types": [0, 1]}, "first layer has no indexer"),
        ("dots3note", {"attention__indexer__types": [0, 0]}, "layer 0 has neither a window nor an indexer"),
        ("dots3note", {"attention__sliding_window": 0}, "sliding_window is 0"),
        ("kimi-linear", {"attention__head_count": [0, 3]}, "first layer has no heads"),
        ("bailingmoe3", {"kda__gate_lower_bound": 0.0}, "gate_lower_bound is 0.0"),
        ("bailingmoe3", {"kda__safe_gate": False}, "safe_gate is False"),
        ("minimax-m3", {"attention__indexer__head_count": 3}, "indexer.head_count is 3, expected a divisor of 4"),
        ("minimax-m3", {"attention__indexer__key_length": 2}, "indexer.key_length is 2"),
        ("minimax-m3", {"attention__value_length": 8}, "value_length is 8, expected 16"),
        ("minicpm3", {"attention__q_lora_rank": None}, "q_lora_rank is missing"),
    ],
)
def test_impossible_metadata_name_the_key(arch: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(arch, **changes)
