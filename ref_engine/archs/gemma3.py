"""Gemma 3: norms before and after both halves, windows of 512 to 1024 in most layers, scaled embeddings.

llama.cpp: src/models/gemma3.cpp. The 27B model (62 layers) scales its scores by D / H instead of the head width.
"""

from __future__ import annotations

import math

from ref_engine.archs.keys import Keys
from ref_engine.reference.attention import default_scale
from ref_engine.spec import AttentionSpec, FfnSpec, LayerSpec, ModelSpec

_LAYERS_OF_27B = 62
_WINDOW_PERIOD = 6


def spec(keys: Keys) -> ModelSpec:
    widths = keys.per_layer("feed_forward_length")
    windows = keys.windows(_WINDOW_PERIOD)
    layers = (
        LayerSpec(
            _attention(keys, window, *heads),
            FfnSpec(width, "gelu"),
            mixer_norm=keys.rms("attn_norm"),
            mixer_post_norm=keys.rms("post_attention_norm"),
            ffn_norm=keys.rms("ffn_norm"),
            ffn_post_norm=keys.rms("post_ffw_norm"),
            stream_name="sa_out",
        )
        for heads, width, window in zip(keys.heads(), widths, windows, strict=True)
    )
    return keys.model(
        layers,
        embedding_scale=math.sqrt(keys.d_model),
        final_soft_cap=keys.real("final_logit_softcapping", 0.0) or None,
    )


def _attention(keys: Keys, window: int | None, n_head: int, n_head_kv: int, head_dim: int, v_dim: int) -> AttentionSpec:
    rope = keys.rope(head_dim, "halves")
    scale = default_scale(keys.d_model // n_head if keys.n_layer == _LAYERS_OF_27B else head_dim)
    return AttentionSpec(
        n_head,
        n_head_kv,
        head_dim,
        scale,
        rope if window is None else keys.windowed_rope(rope),
        v_dim,
        scale_queries=True,
        window=window,
        q_norm=keys.rms("attn_q_norm"),
        k_norm=keys.rms("attn_k_norm"),
    )
