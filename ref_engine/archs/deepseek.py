"""DeepSeek 1 and families that keep its plan, dense layers first, then small experts beside shared ones: dots.llm1,
Ling 1 and 2, GLM 4.5 (llama.cpp: deepseek.cpp, dots1.cpp, bailingmoe.cpp, bailingmoe2.cpp, glm4-moe.cpp).
"""

from __future__ import annotations

from typing import Any

from ref_engine.archs.experts import (
    SELECTION_BIAS,
    dense_ffn,
    expert_layers,
    expert_width,
    leading_dense,
    moe,
    read_routing,
    shared_ffn,
)  # fmt: skip
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import ActivationSpec, AttentionSpec, LayerSpec, ModelSpec, RopeSpec, RoutingSpec
from ref_engine.spec.parts import Part


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    routing = read_routing(keys, normalise=False)
    return keys.model(_layers(keys, rope, routing, leading_dense(keys)))


def bailing_spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    return keys.model(_layers(keys, rope, read_routing(keys, normalise="file"), 0))


def bailing2_spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    routing = read_routing(keys, "file", normalise="file", bias=SELECTION_BIAS)
    width = keys.integer("expert_shared_feed_forward_length", 0, least=0) or None
    mixer = _norms(keys) | {"fused": True, "bias": "no"}
    return keys.model(_layers(keys, rope, routing, leading_dense(keys), mixer, width, stream_name="sa_out"))


def dots_spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    routing = read_routing(keys, "file", normalise="file", bias=SELECTION_BIAS)
    return keys.model(_layers(keys, rope, routing, leading_dense(keys), _norms(keys)))


def glm_spec(keys: Keys) -> ModelSpec:
    """Norms on queries and keys where the file has them; M-RoPE where it has sections.

    Without a shared expert llama.cpp still adds the activation of what that would read.
    """
    sections = keys.sections()
    rope = keys.rope(keys.head_dim, "halves", factors="none", sections=sections)
    routing = read_routing(
        keys, "file", default_gate="sigmoid", normalise="file", bias=SELECTION_BIAS, bias_presence="must"
    )
    mixer = {name: norm for name, norm in _norms(keys).items() if f"blk.0.{norm.name}.weight" in keys.tensors}
    return keys.model(
        _layers(
            keys,
            rope,
            routing,
            leading_dense(keys),
            mixer,
            ffn_norm=keys.rms("post_attention_norm"),
            ffn_norm_name="post_attn_norm",
            shared_name="ffn_shexp_out",
            none_shared=ActivationSpec("silu"),
        )
    )


def _norms(keys: Keys) -> dict[str, Any]:
    return {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}


def _layers(
    keys: Keys,
    rope: RopeSpec,
    routing: RoutingSpec,
    n_dense: int,
    mixer: dict[str, Any] | None = None,
    one_shared: int | None = None,
    shared_name: str = "ffn_shexp",
    none_shared: ActivationSpec | None = None,
    **features: Any,
) -> list[LayerSpec]:
    """one_shared: the width of one shared expert, else that of a routed one. none_shared: what runs beside the experts
    where there is no shared one. mixer, features: of AttentionSpec and LayerSpec."""

    def attend(i: int) -> AttentionSpec:
        return attention(keys, i, rope, **(mixer or {}))

    def ffn(i: int) -> Part:
        if i < n_dense:
            return dense_ffn(keys, i)
        width, n_shared = expert_width(keys, i), keys.integer("expert_shared_count", least=0)
        shared = shared_ffn((one_shared or width) * n_shared) if n_shared else none_shared
        return moe(keys, i, width=width, routing=routing, shared=shared, shared_name=shared_name)

    return expert_layers(keys, attend, ffn, **features)
