"""Families with experts: what their metadata mean where they part from each other (facts: llama.cpp's src/models)."""

from __future__ import annotations

import pytest

from ref_engine.archs import read_spec
from ref_engine.errors import ModelError
from ref_engine.spec import ActivationSpec, AttentionSpec, FfnSpec, ModelSpec, MoeSpec

ROUTER = "ffn_gate_inp.weight"


def read(arch: str, tensors: tuple[str, ...] = (), **changes: object) -> ModelSpec:
    keys: dict[str, object] = {
        "block_count": 6,
        "context_length": 512,
        "embedding_length": 64,
        "feed_forward_length": 96,
        "expert_count": 16,
        "expert_used_count": 4,
        "attention.head_count": 4,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": 32,
    }
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    metadata = {f"{arch}.{key}": value for key, value in keys.items() if value is not None}
    return read_spec({"general.architecture": arch} | metadata, tensors)


def mixers(spec: ModelSpec) -> list[AttentionSpec]:
    return [layer.mixer for layer in spec.layers if isinstance(layer.mixer, AttentionSpec)]


def experts(spec: ModelSpec) -> list[MoeSpec]:
    return [layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoeSpec)]


def kinds(spec: ModelSpec) -> str:
    """One letter for each layer's feed-forward half: experts, dense, or an activation alone."""
    return "".join({MoeSpec: "e", FfnSpec: "d", ActivationSpec: "a"}[type(layer.ffn)] for layer in spec.layers)


def test_mixtral_normalises_and_is_as_wide_as_a_dense_network() -> None:
    (moe, *_) = experts(read("llama", ("blk.0.ffn_gate_exps.weight",)))
    assert (moe.n_expert, moe.n_used, moe.width, moe.routing.gate, moe.routing.normalise) == (
        16,
        4,
        96,
        "softmax",
        True,
    )
    assert kinds(read("llama", expert_count=0)) == "dddddd"


def test_experts_as_wide_as_a_dense_network_divided_among_them() -> None:
    """96 / 4, where the file does not say it; Qwen 2's shared expert is as wide as all of them."""
    assert {moe.width for moe in experts(read("qwen3moe"))} == {24}
    (moe, *_) = experts(read("qwen2moe"))
    assert moe.width == 24 and isinstance(moe.shared, FfnSpec) and moe.shared.width == 96 and moe.shared_gate
    assert not moe.routing.normalise


def test_dense_layers_first() -> None:
    keys = {"leading_dense_block_count": 2, "expert_feed_forward_length": 32, "expert_shared_count": 2}
    spec = read("deepseek", **keys)
    assert kinds(spec) == "ddeeee"
    assert all(isinstance(moe.shared, FfnSpec) and moe.shared.width == 64 for moe in experts(spec))
    assert kinds(read("bailingmoe", **keys)) == "eeeeee"  # which reads that key and does not use it


def test_layers_at_the_end_that_predict_further_are_left_out() -> None:
    spec = read(
        "glm4moe",
        expert_feed_forward_length=32,
        expert_shared_count=1,
        nextn_predict_layers=1,
        expert_weights_norm=True,
    )
    assert len(spec.layers) == 5 and spec.is_ignored("blk.5.nextn.eh_proj.weight")
    (moe, *_) = experts(spec)
    assert (moe.routing.gate, moe.routing.normalise, moe.routing.bias) == ("sigmoid", True, "exp_probs_b.bias")


def test_ernie_has_experts_in_every_other_layer_and_nothing_between() -> None:
    keys = {"expert_feed_forward_length": 32, "leading_dense_block_count": 1, "interleave_moe_layer_step": 2}
    spec = read("ernie4_5-moe", **keys)
    assert kinds(spec) == "deaeae"
    assert spec.is_ignored("blk.2.ffn_up_exps.weight") and not spec.is_ignored("blk.3.ffn_up_exps.weight")


def test_refact_leaves_the_activation_of_its_experts() -> None:
    spec = read("refact")
    assert kinds(spec) == "aaaaaa" and spec.is_ignored("blk.0.ffn_up_exps.weight")
    assert kinds(read("refact", expert_count=0)) == "dddddd"


def test_llama_4() -> None:
    """Chunks of 8192 in three of four layers; the fourth turns nothing and warms its queries instead; experts in every
    second layer, chosen by their logits; norms on the heads but not with 128 experts."""
    keys = {"expert_feed_forward_length": 32, "interleave_moe_layer_step": 2, "attention__head_count_kv": 2}
    spec = read("llama4", **keys)
    assert kinds(spec) == "dedede"
    assert [a.chunk for a in mixers(spec)] == [8192, 8192, 8192, None, 8192, 8192]
    assert [a.rope is None for a in mixers(spec)] == [False, False, False, True, False, False]
    assert [a.temperature is not None for a in mixers(spec)] == [False, False, False, True, False, False]
    assert [a.q_norm is not None for a in mixers(spec)] == [True, True, True, False, True, True]
    (moe, *_) = experts(spec)
    assert moe.weigh_input and moe.routing.select_by == "logits" and moe.routing.gate == "sigmoid"
    assert all(a.q_norm is None for a in mixers(read("llama4", **keys | {"expert_count": 128})))


def test_where_smallthinkers_router_reads_and_what_turns() -> None:
    keys = {"expert_feed_forward_length": 32}
    spec = read("smallthinker", **keys, attention__sliding_window=64)
    assert [a.window for a in mixers(spec)] == [
        None,
        4096,
        4096,
        4096,
        None,
        4096,
    ]  # llama.cpp takes 4096 whatever it says
    assert [a.rope is None for a in mixers(spec)] == [True, False, False, False, True, False]
    assert {(moe.routing.reads, moe.activation) for moe in experts(spec)} == {("layer", "relu")}
    plain = mixers(read("smallthinker", **keys))
    assert all(a.window is None and a.rope is not None for a in plain)


def test_a_router_decides_which_layers_have_experts() -> None:
    """MiMo 2 and Hunyuan 3: a dense network beside a router is not used."""
    routers = tuple(f"blk.{i}.{ROUTER}" for i in range(1, 6))
    keys = {"expert_feed_forward_length": 32, "attention__sliding_window": 16}
    spec = read("mimo2", routers, **keys, attention__sliding_window_pattern=[0, 1, 1, 1, 1, 1])
    assert kinds(spec) == "deeeee"
    assert spec.is_ignored("blk.1.ffn_up.weight") and not spec.is_ignored("blk.0.ffn_up.weight")
    assert spec.is_ignored("blk.0.attn_q.bias")
    spec = read("hy_v3", routers, expert_feed_forward_length=32)
    assert kinds(spec) == "deeeee"
    assert {moe.routing.bias for moe in experts(spec)} == {"exp_probs_b"}


def test_gpt_oss() -> None:
    spec = read("gpt-oss", expert_feed_forward_length=32, attention__sliding_window=128)
    assert [a.window for a in mixers(spec)] == [128, None] * 3
    (moe, *_) = experts(spec)
    assert (moe.routing.gate, moe.routing.router_bias, moe.bias) == ("softmax_weight", "must", "must")
    assert (moe.activation, moe.constants) == ("swiglu_oai", (1.702, 7.0))


def test_maples_limits() -> None:
    limits = [7.0, 0.0, 1e-7, 0.5, 0.5, 0.5]
    spec = read(
        "maple", expert_feed_forward_length=32, swiglu_clamp_exp=limits, attention__sliding_window=8,
        attention__sliding_window_pattern=[1, 0, 1, 1, 1, 1],
    )  # fmt: skip
    assert [moe.constants for moe in experts(spec)] == [(7.0,), (), (), (0.5,), (0.5,), (0.5,)]
    assert [a.rope is None for a in mixers(spec)] == [False, True, False, False, False, False]


def test_the_shape_of_lagunas_gate_tells_its_kind() -> None:
    metadata = {"leading_dense_block_count": 1, "expert_feed_forward_length": 32}
    names = [f"blk.{i}.attn_gate.weight" for i in range(6)]
    shapes = {name: (4 if i % 2 else 64, 64) for i, name in enumerate(names)}
    spec = read("laguna", shapes, **metadata)  # type: ignore[arg-type]
    assert [a.gate for a in mixers(spec)] == ["feature", "head"] * 3


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("grovemoe", {"experts_per_group": 5}, "grovemoe.experts_per_group is 5, expected a divisor of 16"),
        ("grok", {"attn_logit_softcapping": 0.0}, "grok.attn_logit_softcapping is 0.0, expected a number other than 0"),
        ("gpt-oss", {}, "gpt-oss.attention.sliding_window is missing"),
        (
            "maple",
            {
                "swiglu_clamp_exp": ["a"] * 6,
                "attention__sliding_window": 4,
                "attention__sliding_window_pattern": [1] * 6,
            },
            "maple.swiglu_clamp_exp is .*, expected 6 finite numbers",
        ),
        ("dots1", {"expert_shared_count": None}, "dots1.expert_shared_count is missing"),
        (
            "deepseek",
            {"expert_feed_forward_length": None, "feed_forward_length": 0},
            "deepseek.feed_forward_length is 0",
        ),
        ("afmoe", {"expert_feed_forward_length": None}, "afmoe.expert_feed_forward_length is missing"),
    ],
)
def test_errors_name_the_key(arch: str, changes: dict[str, object], message: str) -> None:
    usual = {
        "expert_feed_forward_length": 32,
        "expert_shared_count": 1,
        "expert_gating_func": 2,
        "expert_group_scale": 1.0,
    }
    with pytest.raises(ModelError, match=f"^metadata key {message}"):
        read(arch, **usual | changes)
