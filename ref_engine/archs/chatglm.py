"""ChatGLM 2 to 4: gate and up in one matrix, a part of each head turned (llama.cpp: src/models/chatglm.cpp)."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    return keys.model(layers(keys, keys.rope(keys.head_dim, "adjacent", factors="none"), ffn={"fused": True}))
