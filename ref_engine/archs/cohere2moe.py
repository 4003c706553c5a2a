"""Command A with experts: both halves of a layer read the same norm, windows in three of four layers, positions only
there and in the dense layers at the start (llama.cpp: cohere2moe.cpp)."""

from __future__ import annotations

from typing import Any

from ref_engine.archs.experts import (
    dense_ffn,
    expert_layers,
    expert_width,
    leading_dense,
    moe,
    read_routing,
    shared_ffn,
)
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, NormSpec
from ref_engine.spec.parts import Part

_WINDOW_PERIOD = 4
_MEAN_OF_TWO = 0.5


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    windows = keys.windows(_WINDOW_PERIOD, dense_first=True, required=True)
    routing = read_routing(keys, "file", default_gate="sigmoid", normalise="file")
    n_dense, n_shared = leading_dense(keys, required=True), keys.integer("expert_shared_count", 0, least=0)

    def mixer(i: int) -> AttentionSpec:
        turned = windows[i] is not None or i < n_dense
        return attention(keys, i, rope if turned else None, window=windows[i])

    def ffn(i: int) -> Part:
        if i < n_dense:
            return dense_ffn(keys, i, scales="may")
        width = expert_width(keys, i, divided=False)
        features: dict[str, Any] = {}
        if n_shared:
            one = keys.integer("expert_shared_feed_forward_length", 0, least=0) or width * n_shared
            features = {"shared": shared_ffn(one, scales="may"), "sum_scale": _MEAN_OF_TWO}
        return moe(keys, i, width=width, routing=routing, merged=True, scales="may", **features)

    layers = expert_layers(keys, mixer, ffn, lambda name: _norm(keys, name), ffn_norm=None, parallel=True)
    logit_scale = keys.real("logit_scale") or None
    return keys.model(layers, output_norm=_norm(keys, "output_norm"), logit_scale=logit_scale)


def _norm(keys: Keys, name: str) -> NormSpec:
    """An RMS norm where the file has an epsilon for one, else LayerNorm without a bias."""
    rms = keys.real("attention.layer_norm_rms_epsilon", 0.0) != 0
    return keys.rms(name) if rms else keys.layer_norm(name, bias="no")
