"""Families that read several streams, pools of tokens or n-grams: what their metadata mean, and what is refused."""

from typing import Any

import pytest

from ref_engine.archs import read_spec
from ref_engine.errors import ModelError
from ref_engine.spec import (
    AttentionSpec,
    DeltaNetSpec,
    KdaSpec,
    LatentAttentionSpec,
    MeanIndexSpec,
    ModelSpec,
    MoeSpec,
    PoolIndexSpec,
    tensor_rules,
)

COMMON: dict[str, Any] = {
    "vocab_size": 32,
    "context_length": 64,
    "embedding_length": 16,
    "block_count": 3,
    "feed_forward_length": 24,
    "expert_feed_forward_length": 8,
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_shared_count": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "ssm.conv_kernel": 4,
}
LATENT: dict[str, Any] = {
    "leading_dense_block_count": 1,
    "attention.head_count": 3,
    "attention.head_count_kv": [0, 1, 1],
    "attention.q_lora_rank": 20,
    "attention.kv_lora_rank": 12,
    "attention.key_length_mla": 10,
    "attention.value_length_mla": 6,
    "kda.head_dim": 8,
    "kda.gate_lower_bound": -5.0,
}
INDEX = {"attention.indexer.head_count": 2, "attention.indexer.key_length": 8, "attention.indexer.top_k": 12}
MORE: dict[str, dict[str, Any]] = {
    "kimi-k3": LATENT
    | {
        "rope.dimension_count": 4,
        "expert_gating_func": 2,
        "expert_latent_length": 6,
        "attn_res.block_size": 2,
        "activation.situ_beta": 4.0,
        "activation.situ_linear_beta": 25.0,
    },
    "glm5-next": LATENT
    | INDEX
    | {
        "rope.dimension_count": 0,
        "attention.indexer.kpool": 4,
        "hyper_connection.count": 4,
        "hyper_connection.sinkhorn_iterations": 5,
        "hyper_connection.epsilon": 1e-6,
    },
    "qwen4exp": INDEX
    | {
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 8,
        "attention.value_length": 8,
        "attention.recurrent_layers": [1, 0, 0],
        "attention.compress_ratios": [4, 3, 0],
        "rope.dimension_count": 8,
        "rope.dimension_sections": [2, 1, 1, 0],
        "ssm.inner_size": 32,
        "ssm.state_size": 8,
        "ssm.time_step_rank": 4,
        "ssm.group_count": 2,
        "hyper_connection.count": 2,
        "hyper_connection.low_rank": 5,
        "ple.layers": [0],
        "ple.ngram_size": 3,
        "ple.heads_per_ngram": 2,
        "ple.conv_kernel": 4,
        "ple.eos_token_id": 1,
        "ple.layer_multipliers": [2**64 - 1, 3, 5],
        "ple.head_offsets": [0, 7, 14, 21],
        "ple.head_vocab_sizes": [7, 7, 7, 9],
        "embedding_length_per_layer_input": 4,
    },
}


def read(arch: str, tensors: tuple[str, ...] = (), **changes: Any) -> ModelSpec:
    """The spec of a small model; changes: keys with __ for a dot, None to leave one out."""
    keys = COMMON | MORE[arch] | {key.replace("__", "."): value for key, value in changes.items()}
    metadata = {f"{arch}.{key}": value for key, value in keys.items() if value is not None}
    return read_spec({"general.architecture": arch, **metadata}, tensors)


def test_kimi_k3_banks_the_first_of_each_block_of_layers() -> None:
    spec = read("kimi-k3", ("blk.1.attn_q_a_norm.weight", "blk.1.attn_gate.weight", "blk.2.ffn_gate_shexp.weight"))
    depths = [layer.depth for layer in spec.layers]
    assert [d.banks for d in depths if d] == [True, False, True]
    assert [d.last for d in depths if d] == [False, False, True]
    delta, first, second = (layer.mixer for layer in spec.layers)
    assert isinstance(delta, KdaSpec) and delta.bound == -5 and delta.gate == ("ssm_g",)
    assert isinstance(first, LatentAttentionSpec) and first.q_rank == 20 and first.gated
    assert isinstance(second, LatentAttentionSpec) and second.q_rank is None and not second.gated
    rules = tensor_rules(spec)
    assert rules["blk.1.attn_gate.weight"].shape == (3 * 6, 16)
    assert rules["blk.2.ffn_gate_exps.weight"].shape == (4, 8, 6)  # experts read the narrow vector
    assert rules["blk.2.ffn_up_shexp.weight"].shape == (2 * 8, 16)
    assert "blk.1.ffn_up_shexp.weight" not in rules and "output_res_score.weight" in rules


def test_kimi_k3_without_attention_over_depth() -> None:
    spec = read("kimi-k3", attn_res__block_size=0, kda__gate_lower_bound=-float("inf"))
    assert all(layer.depth is None for layer in spec.layers)
    delta = spec.layers[0].mixer
    assert isinstance(delta, KdaSpec) and delta.bound is None
    assert not any("res_score" in name for name in tensor_rules(spec))


def test_glm5_next_pools() -> None:
    spec = read("glm5-next", attention__indexer__types=[0, 1, 0], swiglu_clamp_exp=[0.0, 0.5, 0.7])
    first, second = (layer.mixer for layer in spec.layers[1:])
    assert isinstance(first, LatentAttentionSpec) and isinstance(first.indexer, PoolIndexSpec)
    assert (first.indexer.pool, first.indexer.top_k) == (4, 3)
    assert isinstance(second, LatentAttentionSpec) and second.follows and second.indexer is None
    assert spec.is_ignored("blk.2.indexer_compressor_gate.weight") and not spec.is_ignored("blk.1.indexer.proj.weight")
    ffn = spec.layers[2].ffn
    assert isinstance(ffn, MoeSpec) and (ffn.activation, ffn.constants) == ("swiglu_clamp", (0.7,))
    assert ffn.routing.gate == "sigmoid"


def test_qwen4exp() -> None:
    spec = read("qwen4exp")
    net, sparse, dense = (layer.mixer for layer in spec.layers)
    assert isinstance(net, DeltaNetSpec) and net.tiled and net.gate_by == "sigmoid"
    assert isinstance(sparse, AttentionSpec) and isinstance(sparse.index, MeanIndexSpec) and sparse.index.block == 3
    assert isinstance(dense, AttentionSpec) and dense.index is None and spec.is_ignored("blk.2.indexer.q_proj.weight")
    rules = tensor_rules(spec)
    assert rules["per_layer_token_embd.weight"].shape == (30, 4)
    assert rules["blk.0.ple_key.weight"].shape == (2 * 16, 16)
    assert rules["blk.1.hc_ffn_up.weight"].shape == (2 * 16, 5)
    assert "output_norm.weight" not in rules and "output_hc_norm.weight" in rules
    assert spec.layers[0].memory().states["ngram"] == (3 * 3, 2 * 16)


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("kimi-k3", {"kda__gate_lower_bound": 0.5}, "kda.gate_lower_bound is 0.5"),
        ("kimi-k3", {"activation__situ_beta": 0.0}, "situ_beta is 0"),
        ("kimi-k3", {"attn_res__block_size": None}, "attn_res.block_size is missing"),
        ("glm5-next", {"hyper_connection__count": 2}, "hyper_connection.count is 2, expected 4"),
        ("glm5-next", {"rope__dimension_count": 4}, "rope.dimension_count is 4, expected 0"),
        ("glm5-next", {"attention__indexer__top_k": 10}, "top_k is 10, expected a multiple of kpool 4"),
        ("glm5-next", {"attention__indexer__kpool": 1}, "kpool is 1"),
        ("glm5-next", {"attention__indexer__kpool_select_tail": False}, "kpool_select_tail is False"),
        ("glm5-next", {"attention__indexer__types": [1, 0, 1]}, "no indexer before"),
        ("qwen4exp", {"hyper_connection__count": 1}, "hyper_connection.count is 1"),
        ("qwen4exp", {"ple__layers": [1]}, "ple.layers is 1, which is not a recurrent layer"),
        ("qwen4exp", {"ple__layers": [3]}, "expected one layer of 3"),
        ("qwen4exp", {"ple__layers": 0}, "ple.layers is 0, expected a list"),
        ("qwen4exp", {"ple__layer_multipliers": [1, 2]}, "expected 3 whole numbers"),
        ("qwen4exp", {"ple__head_vocab_sizes": [7, 7, 0, 9]}, "ple.head_vocab_sizes"),
        ("qwen4exp", {"ple__head_offsets": [0, 7, 14, 2**31]}, "ple.head_offsets"),
        ("qwen4exp", {"embedding_length_per_layer_input": 5}, "times 4 heads not 16"),
        ("qwen4exp", {"attention__compress_ratios": [0, 65, 0]}, "has 65, expected at most 64"),
        ("qwen4exp", {"attention__indexer__key_length": 4}, "key_length is 4, expected at least 8"),
        ("qwen4exp", {"ssm__inner_size": 33}, "ssm.inner_size is 33"),
    ],
)
def test_impossible_metadata(arch: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(arch, **changes)
