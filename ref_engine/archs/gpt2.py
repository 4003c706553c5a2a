"""GPT-2 and StarCoder 1: learned positions, LayerNorm, GELU, biases everywhere.

llama.cpp: src/models/gpt2.cpp and starcoder.cpp.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            None,
            keys.layer_norm,
            mixer={"fused": True, "bias": "must", "output_bias": "must"},
            ffn={"activation": "gelu", "gated": False, "bias": "must"},
        ),
        output_norm=keys.layer_norm("output_norm"),
        position_embedding=True,
    )
