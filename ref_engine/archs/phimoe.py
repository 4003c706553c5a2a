"""Phi 3.5 with experts: norms with biases, two sets of factors of frequencies (llama.cpp: phimoe.cpp and phi3.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import dense_ffn, expert_layers, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec, NormSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="longrope")
    routing = read_routing(keys, normalise=True, scale=False)

    def norm(name: str) -> NormSpec:
        return keys.rms(name, bias="must")

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope, scale_queries=True, output_bias="must")

    def ffn(i: int) -> MoeSpec:
        return moe(keys, i, width=dense_ffn(keys, i).width, routing=routing)

    layers = expert_layers(keys, mixer, ffn, norm)
    return keys.model(layers, output_norm=norm("output_norm"), output_bias="must")
