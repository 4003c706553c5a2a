"""MiniMax M2: norms over all heads of a token together, experts in every layer, chosen with a bias (llama.cpp:
minimax-m2.cpp, where an expert is as wide as feed_forward_length says)."""

from __future__ import annotations

from ref_engine.archs.experts import SELECTION_BIAS, dense_ffn, expert_layers, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm"), "norm_over": "all"}
    routing = read_routing(keys, "file", normalise=True, scale=False, bias=SELECTION_BIAS, bias_presence="must")

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope, **norms)

    def ffn(i: int) -> MoeSpec:
        return moe(keys, i, width=dense_ffn(keys, i).width, routing=routing)

    return keys.model(expert_layers(keys, mixer, ffn))
