"""Mellum: experts in every layer, windows in three of four layers, whose positions are not stretched (llama.cpp:
mellum.cpp)."""

from __future__ import annotations

from dataclasses import replace

from ref_engine.archs.experts import expert_layers, expert_width, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec

_WINDOW_PERIOD = 4


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    unstretched = replace(rope, freq_scale=1.0, ext_factor=0.0, magnitude=1.0)
    windows = keys.windows(_WINDOW_PERIOD)
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}
    routing = read_routing(keys, normalise=True, scale=False)

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope if windows[i] is None else unstretched, window=windows[i], **norms)

    def ffn(i: int) -> MoeSpec:
        return moe(keys, i, width=expert_width(keys, i), routing=routing, scales="may")

    return keys.model(expert_layers(keys, mixer, ffn))
