"""Arcee (AFM): Llama's layer with squared ReLU and no gate (llama.cpp: src/models/arcee.cpp)."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="plain")
    return keys.model(layers(keys, rope, ffn={"activation": "relu_sqr", "gated": False}))
