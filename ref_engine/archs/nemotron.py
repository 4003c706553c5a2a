"""Nemotron 3 and 4: LayerNorm, squared ReLU, a part of each head turned (llama.cpp: src/models/nemotron.cpp)."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "halves", factors="none"),
            keys.layer_norm,
            mixer={"output_bias": "may"},
            ffn={"activation": "relu_sqr", "gated": False, "bias": "may"},
        ),
        output_norm=keys.layer_norm("output_norm"),
        tied=False,
    )
