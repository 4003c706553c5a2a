"""Pocket TTS: LayerNorm, GELU, and the embedding as the output matrix (llama.cpp: src/models/pockettts.cpp)."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "adjacent", factors="none"),
            keys.layer_norm,
            ffn={"activation": "gelu", "gated": False},
        ),
        output_norm=keys.layer_norm("output_norm"),
        tied=True,
    )
