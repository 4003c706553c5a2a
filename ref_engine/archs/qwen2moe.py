"""Qwen 2 with experts: beside them a shared one that has a gate of its own (llama.cpp: qwen2moe.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import dense_ffn, expert_layers, expert_width, moe, read_routing, shared_ffn
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec

_GATE_NAMES = ("ffn_shexp_gate_inp", "ffn_shexp_gate", "ffn_shexp_out")


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    routing = read_routing(keys, normalise=False, scale=False)

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope, output_bias="no")

    def ffn(i: int) -> MoeSpec:
        shared = keys.integer("expert_shared_feed_forward_length", 0, least=0) or dense_ffn(keys, i).width
        width = expert_width(keys, i)
        return moe(
            keys,
            i,
            width=width,
            routing=routing,
            shared=shared_ffn(shared),
            shared_gate=True,
            shared_gate_names=_GATE_NAMES,
        )

    return keys.model(expert_layers(keys, mixer, ffn))
