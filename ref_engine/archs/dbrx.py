"""DBRX: LayerNorm without biases, clamped projections, experts in every layer (llama.cpp: dbrx.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import dense_ffn, expert_layers, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec, NormSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    clamp = keys.real("attention.clamp_kqv")
    routing = read_routing(keys, normalise=True, scale=False)

    def norm(name: str) -> NormSpec:
        return keys.layer_norm(name, bias="no")

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope, fused=True, bias="no", clamp=max(clamp, 0.0))

    def ffn(i: int) -> MoeSpec:
        return moe(keys, i, width=dense_ffn(keys, i).width, routing=routing)

    layers = expert_layers(keys, mixer, ffn, norm, ffn_norm=norm("attn_output_norm"), ffn_norm_name="attn_out_norm")
    return keys.model(layers, output_norm=norm("output_norm"))
