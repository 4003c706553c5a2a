"""Maincoder: norms on the heads after they are turned (llama.cpp: src/models/maincoder.cpp)."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm"), "norm_after_rope": True}
    return keys.model(layers(keys, rope, mixer=norms))
