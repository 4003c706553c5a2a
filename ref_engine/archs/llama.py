"""Llama 1 to 3, Mistral, Mixtral, SmolLM2 and the many others that share their layer (llama.cpp: models/llama.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import dense_or_moe
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.errors import ModelError
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent")
    if rope.n_rot != keys.head_dim:
        raise ModelError(f"metadata key {keys.arch}.rope.dimension_count is {rope.n_rot}, expected {keys.head_dim}")
    ffn = dense_or_moe(keys, {"bias": "may", "scales": "may"}, scales="may")
    return keys.model(layers(keys, rope, mixer={"output_bias": "may"}, ffn=ffn))
