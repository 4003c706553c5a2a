"""Llama 1 to 3, Mistral, SmolLM2 and the many others that share their layer (llama.cpp: src/models/llama.cpp)."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import AttentionSpec, FfnSpec, LayerSpec, ModelSpec


def spec(keys: Keys) -> ModelSpec:
    if keys.integer("expert_count", 0, least=0):
        raise ModelError(f"metadata key {keys.arch}.expert_count: mixtures of experts are not supported yet")
    widths = keys.per_layer("feed_forward_length")
    return keys.model(
        LayerSpec(
            _attention(keys, *heads),
            FfnSpec(width, "silu", bias="may"),
            mixer_norm=keys.rms("attn_norm"),
            ffn_norm=keys.rms("ffn_norm"),
        )
        for heads, width in zip(keys.heads(), widths, strict=True)
    )


def _attention(keys: Keys, n_head: int, n_head_kv: int, head_dim: int, v_dim: int) -> AttentionSpec:
    rope = keys.rope(head_dim, "adjacent")
    if rope.n_rot != head_dim:
        raise ModelError(f"metadata key {keys.arch}.rope.dimension_count is {rope.n_rot}, expected {head_dim}")
    return AttentionSpec(n_head, n_head_kv, head_dim, default_scale(head_dim), rope, v_dim, output_bias="may")
