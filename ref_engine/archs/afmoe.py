"""AFMoE (Trinity): gated attention with norms on the heads, windows in three of four layers, no positions in every
fourth, norms before and after both halves, scaled embeddings (llama.cpp: afmoe.cpp)."""

from __future__ import annotations

import math

from ref_engine.archs.experts import (
    SELECTION_BIAS,
    dense_ffn,
    expert_layers,
    leading_dense,
    moe,
    read_routing,
    shared_ffn,
)  # fmt: skip
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec
from ref_engine.spec.parts import Part

_WINDOW_PERIOD = 4
_UNTURNED_PERIOD = 4


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    windowed = keys.windowed_rope(rope, base=rope.base, scaled=True)
    windows = keys.windows(_WINDOW_PERIOD)
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}
    routing = read_routing(
        keys, "file", default_gate="sigmoid", normalise="file", bias=SELECTION_BIAS, bias_presence="must"
    )
    n_dense = leading_dense(keys)

    def mixer(i: int) -> AttentionSpec:
        turned = rope if windows[i] is None else windowed
        unturned = (i + 1) % _UNTURNED_PERIOD == 0
        return attention(keys, i, None if unturned else turned, window=windows[i], gate="feature", **norms)

    def ffn(i: int) -> Part:
        if i < n_dense:
            return dense_ffn(keys, i)
        width = keys.per_layer("expert_feed_forward_length")[i]
        n_shared = keys.integer("expert_shared_count", least=0)
        return moe(keys, i, routing=routing, shared=shared_ffn(width * n_shared) if n_shared else None)

    layers = expert_layers(
        keys, mixer, ffn, mixer_post_norm=keys.rms("post_attention_norm"), ffn_post_norm=keys.rms("post_ffw_norm")
    )
    return keys.model(layers, embedding_scale=math.sqrt(keys.d_model))
