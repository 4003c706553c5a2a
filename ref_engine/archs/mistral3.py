"""Ministral 3: Llama's layer, YaRN, and queries that grow with their position (llama.cpp: src/models/mistral3.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import dense_or_moe
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec
from ref_engine.spec.attention import Temperature


def spec(keys: Keys) -> ModelSpec:
    yarn = keys.yarn(betas=True, log_mul=keys.real("rope.scaling.yarn_log_multiplier", 0.0))
    scale = keys.real("attention.temperature_scale", 0.0)
    temperature = Temperature(scale, keys.n_ctx_orig) if scale else None
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "adjacent", yarn=yarn),
            mixer={"output_bias": "may", "temperature": temperature},
            ffn=dense_or_moe(keys, {"bias": "may", "scales": "may"}, scales="may"),
        )
    )
