"""DeciLM and Llama-Nemotron: Llama's layers with some attentions cut away, replaced by one matrix, or whole layers.

llama.cpp: src/models/deci.cpp. A layer without a feed-forward network does nothing there, and so here.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.errors import ModelError
from ref_engine.spec import AttentionSpec, FfnSpec, LayerSpec, ModelSpec
from ref_engine.spec.parts import Part
from ref_engine.spec.projection import ProjectionSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent")
    if rope.n_rot != keys.head_dim:
        raise ModelError(f"metadata key {keys.arch}.rope.dimension_count is {rope.n_rot}, expected {keys.head_dim}")
    widths = keys.per_layer("feed_forward_length", least=0)
    unused = [f"blk.{i}.{name}" for i, width in enumerate(widths) if not width for name in ("attn_*", "ffn_*.bias")]
    layers = []
    for i, width in enumerate(widths):
        mixer = _mixer(keys, i) if width else None
        if not isinstance(mixer, AttentionSpec):
            unused.append(f"blk.{i}.attn_output.bias")
        layers.append(
            LayerSpec(
                mixer,
                FfnSpec(width, "silu", bias="may") if width else None,
                mixer_norm=keys.rms("attn_norm") if mixer else None,
                ffn_norm=keys.rms("ffn_norm") if width else None,
            )
        )
    return keys.model(layers, ignored=tuple(unused))


def _mixer(keys: Keys, i: int) -> Part | None:
    """None without query heads, one matrix without key/value heads."""
    head = keys.heads(recurrent=True)[i]
    if head.n_head == 0:
        return None
    if head.n_head_kv == 0:
        return ProjectionSpec("attn_output")
    return attention(keys, i, keys.rope(head.head_dim, "adjacent"), output_bias="may")
