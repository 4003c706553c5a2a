"""OpenELM: heads and widths that change from layer to layer, norms on the heads (llama.cpp: src/models/openelm.cpp)."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    return keys.model(layers(keys, rope, mixer=norms | {"fused": True, "bias": "no"}), tied=True)
