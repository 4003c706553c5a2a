"""Hunyuan with experts: norms on the heads after they are turned, a shared expert in every layer (llama.cpp:
hunyuan-moe.cpp, where an expert is as wide as feed_forward_length says)."""

from __future__ import annotations

from ref_engine.archs.experts import dense_ffn, expert_layers, moe, read_routing, shared_ffn
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm"), "norm_after_rope": True}
    routing = read_routing(keys, normalise=True, scale=False)

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope, **norms)

    def ffn(i: int) -> MoeSpec:
        width = dense_ffn(keys, i).width
        shared = keys.integer("expert_shared_feed_forward_length", 0, least=0) or width
        return moe(keys, i, width=width, routing=routing, shared=shared_ffn(shared), shared_name="ffn_mlp")

    return keys.model(expert_layers(keys, mixer, ffn))
