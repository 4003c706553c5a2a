"""BLOOM: LayerNorm, ALiBi, a norm after the embedding (llama.cpp: src/models/bloom.cpp)."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec

_LARGEST_SLOPE = 8.0


def spec(keys: Keys) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            None,
            keys.layer_norm,
            mixer={"fused": True, "bias": "must", "output_bias": "must", "alibi": _LARGEST_SLOPE},
            ffn={"activation": "gelu", "gated": False, "bias": "must"},
        ),
        embedding_norm=keys.layer_norm("token_embd_norm"),
        output_norm=keys.layer_norm("output_norm"),
    )
