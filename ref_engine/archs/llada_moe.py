"""LLaDA with experts, which sees both sides, and OLMoE: norms on queries and keys, weights of experts as the softmax
over all gives them (llama.cpp: llada-moe.cpp, olmoe.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import dense_ffn, expert_layers, expert_width, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec


def spec(keys: Keys) -> ModelSpec:
    """Each head normalised on its own."""
    return _spec(keys, "head", causal=False)


def olmoe_spec(keys: Keys) -> ModelSpec:
    """All heads of a token normalised together; experts as wide as feed_forward_length says."""
    return _spec(keys, "all", causal=keys.causal)


def _spec(keys: Keys, norm_over: str, causal: bool) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm"), "norm_over": norm_over}
    routing = read_routing(keys, normalise=False, scale=False)

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope, causal=causal, **norms)

    def ffn(i: int) -> MoeSpec:
        width = dense_ffn(keys, i).width if norm_over == "all" else expert_width(keys, i)
        return moe(keys, i, width=width, routing=routing)

    return keys.model(expert_layers(keys, mixer, ffn), causal=causal)
