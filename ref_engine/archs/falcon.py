"""Falcon: both halves side by side, in the 40B model after norms of their own (llama.cpp: src/models/falcon.cpp)."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.errors import ModelError
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    if rope.n_rot != keys.head_dim:
        raise ModelError(f"metadata key {keys.arch}.rope.dimension_count is {rope.n_rot}, expected {keys.head_dim}")
    norm = keys.layer_norm("attn_norm")
    two = "blk.0.attn_norm_2.weight" in keys.tensors
    return keys.model(
        layers(
            keys,
            rope,
            keys.layer_norm,
            mixer={"fused": True, "bias": "no"},
            ffn={"activation": "gelu", "gated": False},
            mixer_norm=keys.layer_norm("attn_norm_2", bias="may") if two else norm,
            ffn_norm=norm if two else None,
            parallel=True,
            names={"attn_norm": "attn_norm_2", "ffn_norm": "attn_norm"} if two else {},
        ),
        output_norm=keys.layer_norm("output_norm"),
    )
