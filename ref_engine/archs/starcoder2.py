"""StarCoder 2: LayerNorm, GELU, biases everywhere, all of a head turned (llama.cpp: src/models/starcoder2.cpp)."""

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
            mixer={"output_bias": "must"},
            ffn={"activation": "gelu", "gated": False, "bias": "must"},
        ),
        output_norm=keys.layer_norm("output_norm"),
    )
