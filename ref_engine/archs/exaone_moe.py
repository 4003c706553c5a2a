"""EXAONE with experts: norms on the heads, windows in three of four layers, positions only there (llama.cpp:
exaone-moe.cpp)."""

from __future__ import annotations

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


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="plain")
    windows = keys.windows(_WINDOW_PERIOD, required=True)
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}
    routing = read_routing(keys, "file", normalise="file", bias=SELECTION_BIAS)
    n_dense = leading_dense(keys)

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, None if windows[i] is None else rope, window=windows[i], **norms)

    def ffn(i: int) -> Part:
        if i < n_dense:
            return dense_ffn(keys, i)
        width = keys.per_layer("expert_feed_forward_length")[i]
        shared = keys.integer("expert_shared_feed_forward_length", 0, least=0) or width
        return moe(keys, i, routing=routing, shared=shared_ffn(shared))

    return keys.model(expert_layers(keys, mixer, ffn))
