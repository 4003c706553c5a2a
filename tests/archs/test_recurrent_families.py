"""What the recurrent and hybrid families say of themselves: numbers worked out by hand, or from llama.cpp's loaders."""

from typing import Any

import numpy as np
import pytest

import ref_engine
from ref_engine.archs import read_spec
from ref_engine.spec import (
    AttentionSpec,
    DeltaNetSpec,
    FfnSpec,
    LightningSpec,
    Mamba2Spec,
    MambaSpec,
    ModelSpec,
    MoeSpec,
    ShortConvSpec,
    tensor_rules,
)

COMMON: dict[str, Any] = {
    "block_count": 4,
    "context_length": 512,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "vocab_size": 32,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 128,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 8,
    "ssm.group_count": 2,
    "shortconv.l_cache": 3,
    "residual_scale": 2.0,
    "rope.dimension_sections": [2, 2, 2, 2],
    "expert_count": 8,
    "expert_used_count": 2,
    "expert_gating_func": 2,
}


def family(arch: str, tensors: tuple[str, ...] = (), **changes: Any) -> ModelSpec:
    """The spec of a family; changes with `__` for a dot, None to leave a key out."""
    keys = COMMON | {name.replace("__", "."): value for name, value in changes.items()}
    metadata = {f"{arch}.{name}": value for name, value in keys.items() if value is not None}
    return read_spec({"general.architecture": arch, **metadata}, tensors)


def mixers(spec: ModelSpec) -> list[type]:
    return [type(layer.mixer) for layer in spec.layers]


A, M, N, D, L, S = AttentionSpec, MambaSpec, Mamba2Spec, DeltaNetSpec, LightningSpec, ShortConvSpec


@pytest.mark.parametrize(("arch", "recurrent"), [("qwen3next", D), ("qwen35", D), ("qwen35moe", D), ("minimax-01", L)])
def test_intervals_and_lists_of_recurrent_layers(arch: str, recurrent: type) -> None:
    """Every fourth layer attends in Qwen's, every eighth in MiniMax's, unless the file says otherwise."""
    interval = 8 if arch == "minimax-01" else 4
    by_default = mixers(family(arch, block_count=9))
    assert by_default == [A if i in (interval - 1, 2 * interval - 1) else recurrent for i in range(9)]
    assert mixers(family(arch, full_attention_interval=2)) == [recurrent, A, recurrent, A]
    listed = {"attention__recurrent_layers": np.array([1, 0, 0, 1], np.uint32), "full_attention_interval": 2}
    assert mixers(family(arch, **listed)) == [recurrent, A, A, recurrent]
    assert mixers(family(arch, attention__recurrent_layers=1)) == [recurrent] * 4


@pytest.mark.parametrize(
    ("arch", "recurrent"), [("jamba", M), ("plamo2", M), ("granitehybrid", N), ("lfm2", S), ("lfm2moe", S)]
)
def test_layers_without_key_value_heads_are_recurrent(arch: str, recurrent: type) -> None:
    spec = family(arch, attention__head_count_kv=[2, 0, 0, 4], expert_feed_forward_length=32)
    assert mixers(spec) == [A, recurrent, recurrent, A]
    assert spec.layers[3].mixer.n_head_kv == 4


def test_layers_of_nemotron_are_one_thing_each() -> None:
    """No width and no heads: Mamba 2; no width: attention; a width: a network, gateless, of relu squared."""
    keys = {"feed_forward_length": [0, 0, 96, 64], "attention__head_count_kv": [2, 0, 2, 0]}
    eps = {"attention__layer_norm_rms_epsilon": None, "attention__layer_norm_epsilon": 0.25}
    spec = family("nemotron_h", expert_count=0, **keys, **eps)
    assert mixers(spec) == [A, N, FfnSpec, FfnSpec]
    assert [layer.ffn for layer in spec.layers] == [None] * 4
    ffn = spec.layers[3].mixer
    assert (ffn.width, ffn.activation, ffn.gated) == (64, "relu_sqr", False)
    assert {layer.mixer_norm.eps for layer in spec.layers} | {spec.output_norm.eps} == {0.25}
    assert spec.layers[0].mixer.rope is None
    moe = family("nemotron_h_moe", expert_shared_feed_forward_length=32, **keys, attention__layer_norm_epsilon=1e-5)
    assert mixers(moe) == [A, N, MoeSpec, MoeSpec]
    assert [moe.layers[i].mixer.width for i in (2, 3)] == [48, 32]  # the layer's width over two experts used
    own = {"expert_feed_forward_length": [0, 0, 40, 24], "expert_used_count": [0, 0, 3, 1]}
    moe = family(
        "nemotron_h_moe", expert_shared_feed_forward_length=32, **keys, **own, attention__layer_norm_epsilon=1e-5
    )
    assert [(m.width, m.n_used) for m in (moe.layers[2].mixer, moe.layers[3].mixer)] == [(40, 3), (24, 1)]


def test_slopes_of_lightning_attention() -> None:
    """Eight heads: a half to the powers 1 to 8, times 1, 1/2 and 0 from the first layer to the last, plus 1e-5."""
    spec = family("minimax-01", attention__head_count=8, block_count=3)
    for layer, share in zip(spec.layers, (1, 0.5, 0), strict=True):
        np.testing.assert_allclose(layer.mixer.slopes, [0.5**h * (share + 1e-5) for h in range(1, 9)], rtol=1e-12)
        assert layer.normed_residual == 2.0


def test_projections_of_a_delta_net_old_and_new() -> None:
    new = family("qwen3next", ("blk.0.attn_qkv.weight",)).layers
    assert [net.mixer.mixed for net in new[:3]] == [False, True, True]
    assert all(net.mixer.paired and not net.mixer.tiled for net in new[:3])
    net = family("qwen35").layers[0].mixer
    assert (net.mixed, net.paired, net.tiled) == (False, False, True)
    assert (net.n_head, net.n_head_kv, net.head_dim, net.conv_width) == (8, 2, 16, 2 * 2 * 16 + 8 * 16)


def test_tensors_of_each_kind_of_layer() -> None:
    """Shapes by hand: D 64, inner 128, states of 16, 8 heads or steps of rank 8, 2 groups, filters of 4 tokens."""
    rules = tensor_rules(family("mamba"))
    assert rules["blk.3.ssm_in.weight"].shape == (256, 64)
    assert rules["blk.3.ssm_x.weight"].shape == (8 + 2 * 16, 128)
    assert rules["blk.3.ssm_a"].shape == (128, 16)
    assert not [name for name in rules if "ffn" in name or "attn_q" in name]
    rules = tensor_rules(family("mamba2"))
    assert rules["blk.0.ssm_in.weight"].shape == (2 * 128 + 2 * 2 * 16 + 8, 64)
    assert rules["blk.0.ssm_conv1d.weight"].shape == (128 + 2 * 2 * 16, 4)
    assert rules["blk.0.ssm_norm.weight"].shape == (2, 64)
    rules = tensor_rules(family("plamo2", attention__head_count_kv=[2, 0, 0, 0]))
    assert rules["blk.1.ssm_x.weight"].shape == (64 + 2 * 16, 128)  # steps are made of at least 64 features
    assert rules["blk.1.ssm_a"].shape == (8,)
    rules = tensor_rules(family("qwen35"))
    assert rules["blk.3.attn_q.weight"].shape == (2 * 4 * 16, 64)  # queries and gates
    rules = tensor_rules(family("lfm2", attention__head_count_kv=[2, 0, 0, 0]))
    assert rules["blk.1.shortconv.in_proj.weight"].shape == (3 * 64, 64)
    assert "token_embd_norm.weight" in rules and "output_norm.weight" not in rules


def test_falcon_h1_leaves_out_what_llama_cpp_leaves_out() -> None:
    spec = family("falcon-h1", ("blk.0.ssm_norm.weight", "rope_freqs.weight"))
    assert spec.is_ignored("blk.2.attn_output.bias") and spec.is_ignored("rope_freqs.weight")
    assert len(spec.ropes) == 1  # found inside what runs side by side
    first, second = (layer.mixer.parts[1] for layer in spec.layers[:2])
    assert first.norm is not None and second.norm is None
    memory = spec.layers[0].memory()
    assert set(memory.rows) == {"k", "v"} and set(memory.states) == {"conv", "ssm"}


def test_scales_of_granite() -> None:
    hybrid = {"attention__head_count_kv": [2, 0, 2, 0], "attention__scale": 0.5, "logit_scale": 4.0}
    spec = family("granitehybrid", **hybrid, embedding_scale=12.0)
    assert (spec.embedding_scale, spec.logit_scale, spec.layers[1].residual_scale) == (12.0, 0.25, 2.0)
    assert spec.layers[0].mixer.scale == 0.5 and spec.layers[0].mixer.rope is not None
    still = family("granitehybrid", **hybrid, rope__scaling__finetuned=False)
    assert still.layers[0].mixer.rope is None


def test_lfm2_windows_and_sides() -> None:
    kv = {"attention__head_count_kv": [2, 0, 2, 0]}
    causal = family("lfm2", **kv, attention__sliding_window=32)
    assert causal.layers[0].mixer.window == 32 and causal.layers[1].mixer.memory().states == {"conv": (2, 64)}
    both = family("lfm2", **kv, attention__causal=False)
    assert both.layers[1].mixer.memory().states == {}
    assert not both.layers[0].mixer.causal and not both.causal


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("mamba", {"ssm__state_size": None}, r"mamba\.ssm\.state_size is missing"),
        ("mamba", {"ssm__conv_kernel": 0}, r"mamba\.ssm\.conv_kernel is 0"),
        ("mamba2", {"ssm__group_count": 3}, r"mamba2\.ssm\.group_count is 3, expected a divisor of 8"),
        ("mamba2", {"ssm__time_step_rank": 7}, r"mamba2\.ssm\.time_step_rank is 7, expected a divisor of 128"),
        ("plamo2", {"ssm__time_step_rank": 7, "attention__head_count_kv": 0}, r"plamo2\.ssm\.time_step_rank is 7"),
        ("jamba", {"attention__head_count": [0, 4, 4, 4]}, r"jamba\.attention\.head_count is 0 for layer 0"),
        ("minimax-01", {"attention__head_count": 0, "attention__head_count_kv": 0}, r"attention\.head_count is 0"),
        ("minimax-01", {"residual_scale": None}, r"minimax-01\.residual_scale is missing"),
        ("qwen3next", {"ssm__inner_size": 120}, r"qwen3next\.ssm\.inner_size is 120, expected 128"),
        ("qwen3next", {"ssm__group_count": 5}, r"qwen3next\.ssm\.group_count is 5, expected a divisor of 8"),
        ("qwen35", {"attention__value_length": 8}, r"qwen35\.attention\.value_length is 8, expected 16"),
        ("qwen35", {"full_attention_interval": 0}, r"qwen35\.full_attention_interval is 0"),
        ("qwen35", {"attention__recurrent_layers": [1, 0]}, r"qwen35\.attention\.recurrent_layers is \[1, 0\]"),
        ("qwen35", {"rope__dimension_sections": None}, r"qwen35\.rope\.dimension_sections is missing"),
        ("qwen35moe", {"feed_forward_length": None}, r"qwen35moe\.expert_feed_forward_length is missing or 0"),
        ("lfm2", {"shortconv__l_cache": 1, "attention__head_count_kv": 0}, r"lfm2\.shortconv\.l_cache is 1"),
        (
            "lfm2",
            {"shortconv__l_cache": 4, "attention__causal": False, "attention__head_count_kv": 0},
            r"lfm2\.shortconv\.l_cache is 4, expected an odd number",
        ),
        ("nemotron_h_moe", {"attention__layer_norm_epsilon": None}, r"attention\.layer_norm_epsilon is missing"),
    ],
)
def test_the_key_at_fault_is_named(arch: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ref_engine.ModelError, match=message):
        family(arch, **changes)
