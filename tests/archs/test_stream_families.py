"""Families with hyper-connections: what their metadata mean, worked out by hand, and what is refused."""

from typing import Any

import pytest

from ref_engine.archs import read_spec
from ref_engine.errors import ModelError
from ref_engine.spec import CompressedAttentionSpec, HyperSpec, LatentAttentionSpec, ModelSpec, MoeSpec, tensor_rules

COMMON: dict[str, Any] = {
    "vocab_size": 32,
    "context_length": 64,
    "embedding_length": 16,
    "block_count": 3,
    "feed_forward_length": 24,
    "expert_feed_forward_length": 8,
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_shared_count": 1,
    "expert_weights_scale": 1.5,
    "expert_weights_norm": True,
    "attention.head_count": 6,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.q_lora_rank": 20,
    "attention.indexer.head_count": 2,
    "attention.indexer.key_length": 8,
    "attention.indexer.top_k": 5,
    "hyper_connection.count": 4,
    "hyper_connection.epsilon": 1e-6,
    "rope.dimension_count": 4,
}
HUNYUAN: dict[str, Any] = COMMON | {
    "expert_gating_func": 2,
    "leading_dense_block_count": 1,
    "attention.kv_lora_rank": 12,
    "attention.key_length_mla": 10,
    "attention.value_length_mla": 6,
    "attention.indexer.types": [1, 0, 1],
    "hyper_connection.magnitude": 3.0,
    "swiglu_clamp_exp": [0.0, 7.0, 0.0],
}
DEEPSEEK: dict[str, Any] = COMMON | {
    "expert_gating_func": 4,
    "attention.key_length": 10,
    "attention.value_length": 10,
    "attention.sliding_window": 7,
    "attention.output_group_count": 3,
    "attention.output_lora_rank": 5,
    "attention.compress_ratios": [0, 4, 128],
    "attention.compress_rope_freq_base": 500.0,
    "hyper_connection.sinkhorn_iterations": 3,
    "hash_layer_count": 1,
    "swiglu_clamp_exp": [7.0, 7.0, 7.0],
}


def spec_of(arch: str, keys: dict[str, Any], tensors: tuple[str, ...] = (), **changed: Any) -> ModelSpec:
    keys = {name: value for name, value in (keys | changed).items() if value is not None}
    metadata = {"general.architecture": arch} | {f"{arch}.{name}": value for name, value in keys.items()}
    return read_spec(metadata, tensors)


def hunyuan(**changed: Any) -> ModelSpec:
    return spec_of("hy_v4", HUNYUAN, **changed)


def deepseek(*tensors: str, **changed: Any) -> ModelSpec:
    return spec_of("deepseek4", DEEPSEEK, tensors, **changed)


def test_hunyuan_streams_do_not_mix() -> None:
    spec = hunyuan()
    hyper = spec.layers[0].hyper
    assert spec.streams is not None and isinstance(hyper, HyperSpec) and spec.streams.head == hyper
    assert (hyper.n, hyper.rounds, hyper.magnitude, hyper.post_eps, hyper.norm_eps) == (4, 0, 3.0, 1e-6, 1e-5)
    rules = tensor_rules(spec)
    assert rules["blk.0.hc_attn_fn.weight"].shape == (8, 64)  # to read and to write, of 4 streams of 16 features
    assert rules["blk.0.hc_ffn_scale.weight"].shape == (2,)
    assert rules["output_hc_fn.weight"].shape == (4, 64)


def test_hunyuan_layers_follow_the_indexer_before_them() -> None:
    mixers = [layer.mixer for layer in hunyuan().layers]
    assert all(isinstance(m, LatentAttentionSpec) for m in mixers)
    assert [(m.indexer is not None, m.follows) for m in mixers if isinstance(m, LatentAttentionSpec)] == [
        (True, False), (False, True), (True, False),
    ]  # fmt: skip
    without = hunyuan(**{"attention.indexer.top_k": None, "attention.indexer.types": None})
    assert all(isinstance(x.mixer, LatentAttentionSpec) and x.mixer.indexer is None for x in without.layers)
    assert not any(isinstance(x.mixer, LatentAttentionSpec) and x.mixer.follows for x in without.layers)


def test_only_hunyuans_experts_are_clamped() -> None:
    ffns = [layer.ffn for layer in hunyuan().layers[1:]]
    assert [(f.activation, f.constants) for f in ffns if isinstance(f, MoeSpec)] == [
        ("swiglu_clamp", (7.0,)), ("silu", ()),
    ]  # fmt: skip
    assert {f.shared.activation for f in ffns if isinstance(f, MoeSpec) and f.shared is not None} == {"silu"}


def test_deepseek_layers_by_ratio_of_compression() -> None:
    spec = deepseek()
    window, short, long = (x.mixer for x in spec.layers)
    assert isinstance(window, CompressedAttentionSpec) and window.compressor is None and window.index is None
    assert isinstance(short, CompressedAttentionSpec) and short.compressor is not None and short.index is not None
    assert isinstance(long, CompressedAttentionSpec) and long.compressor is not None and long.index is None
    assert (window.rope.base, short.rope.base, long.rope.base) == (10000.0, 500.0, 500.0)
    assert (short.compressor.span, long.compressor.span) == (8, 128)
    rules = tensor_rules(spec)
    assert rules["blk.1.attn_compressor_kv.weight"].shape == (20, 16)  # a vector of 10 features for each of two roles
    assert rules["blk.1.indexer_compressor_ape.weight"].shape == (4, 16)
    assert rules["blk.2.attn_compressor_gate.weight"].shape == (10, 16)
    assert rules["blk.0.attn_output_a.weight"].shape == (3, 5, 20)  # three groups of two heads
    assert rules["blk.0.hc_attn_fn.weight"].shape == (24, 64)  # 4 + 4 + 4 * 4
    assert "blk.0.attn_compressor_kv.weight" not in rules


def test_deepseek_is_stretched_where_keys_are_compressed() -> None:
    stretched = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.attn_factor": 2.0}
    window, short, _ = (x.mixer for x in deepseek(**stretched).layers)
    assert isinstance(window, CompressedAttentionSpec) and isinstance(short, CompressedAttentionSpec)
    assert (window.rope.freq_scale, window.rope.ext_factor, window.rope.magnitude) == (1.0, 0.0, 1.0)
    assert (short.rope.freq_scale, short.rope.ext_factor, short.rope.magnitude) == (0.25, 1.0, 1.0)


def test_deepseeks_first_experts_go_by_token_id() -> None:
    rules = tensor_rules(deepseek())
    assert rules["blk.0.ffn_gate_tid2eid.weight"].shape == (32, 2)
    assert "blk.0.exp_probs_b.bias" not in rules
    assert rules["blk.1.exp_probs_b.bias"].required
    assert "blk.1.ffn_gate_tid2eid.weight" not in rules


def test_deepseek_may_count_layers_that_are_not_there() -> None:
    ahead: dict[str, Any] = {"nextn_predict_layers": 1}
    assert deepseek(**ahead).n_layer == 3
    assert deepseek("blk.2.nextn.eh_proj.weight", **ahead).n_layer == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hyper_connection.count": 0}, "hyper_connection.count is 0"),
        ({"hyper_connection.count": 1 << 20}, "hyper_connection.count is 1048576, expected at most"),
        ({"hyper_connection.sinkhorn_iterations": 1 << 30}, "sinkhorn_iterations is 1073741824, expected at most"),
        ({"hyper_connection.epsilon": None}, "hyper_connection.epsilon is missing"),
        ({"attention.compress_ratios": [0, 4, 8]}, "compress_ratios is 8"),
        ({"attention.compress_ratios": [0, 4]}, "compress_ratios"),
        ({"attention.output_group_count": 4}, "output_group_count is 4, expected a divisor of 6"),
        ({"attention.value_length": 8}, "value_length is 8"),
        ({"attention.indexer.key_length": 2}, "indexer.key_length is 2"),
        ({"attention.compress_rope_freq_base": 0.0}, "compress_rope_freq_base"),
        ({"attention.sliding_window": 0}, "sliding_window is 0"),
        ({"expert_gating_func": 2}, "expert_gating_func is 2, expected 4"),
        ({"hash_layer_count": None}, "hash_layer_count is missing"),
    ],
)
def test_deepseek_refuses(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        deepseek(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attention.indexer.types": [0, 1, 1]}, "indexer.types: the first layer"),
        ({"attention.indexer.types": None}, "indexer.types is missing"),
        ({"attention.indexer.key_length": 4}, "indexer.key_length is 4, expected more than the 4"),
        ({"attention.key_length_mla": 0}, "key_length_mla"),
        ({"hyper_connection.magnitude": None}, "hyper_connection.magnitude is missing"),
        ({"swiglu_clamp_exp": [1.0]}, "swiglu_clamp_exp"),
    ],
)
def test_hunyuan_refuses(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        hunyuan(**changed)
