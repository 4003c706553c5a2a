"""Maple: experts in every layer with clamped gates; positions only in layers with windows (llama.cpp: maple.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import expert_layers, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec

_LEAST_LIMIT = 1e-6  # smaller limits mean none


def spec(keys: Keys) -> ModelSpec:
    head_dim = keys.head_dim
    n_rot = keys.integer("rope.dimension_count_swa", keys.integer("rope.dimension_count", head_dim))
    rope = keys.rope(head_dim, "halves", factors="none", n_rot=n_rot)
    windowed = keys.windowed_rope(rope, base=rope.base, scaled=True)
    windows = keys.windows(None, required=True)
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}
    limits = keys.reals_per_layer("swiglu_clamp_exp")
    routing = read_routing(keys, normalise=True, scale=False)

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, None if windows[i] is None else windowed, window=windows[i], **norms)

    def ffn(i: int) -> MoeSpec:
        if limits[i] <= _LEAST_LIMIT:
            return moe(keys, i, routing=routing)
        return moe(keys, i, activation="swiglu_clamp", constants=(limits[i],), routing=routing)

    return keys.model(expert_layers(keys, mixer, ffn))
