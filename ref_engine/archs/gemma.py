"""Gemma 1 and 2: scaled embeddings, gated GELU (llama.cpp: src/models/gemma.cpp and gemma2.cpp).

The second has norms after both halves too, soft caps on scores and logits, and a window of 4096 in every other layer.
"""

from __future__ import annotations

import math

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.reference.attention import default_scale
from ref_engine.spec import ModelSpec

_WINDOW, _WINDOW_PERIOD = 4096, 2
_LAYERS_OF_27B = 46  # scales its scores by D / H instead of the head width


def gemma(keys: Keys) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "halves", factors="none"),
            mixer={"scale_queries": True},
            ffn={"activation": "gelu"},
            stream_name="sa_out",
        ),
        embedding_scale=math.sqrt(keys.d_model),
        tied=True,
    )


def gemma2(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    windowed_rope = keys.windowed_rope(rope, rope.base, scaled=True)
    windows = keys.windows(_WINDOW_PERIOD, _WINDOW)
    head = keys.heads()[0]
    scored_width = keys.d_model // head.n_head if keys.n_layer == _LAYERS_OF_27B else head.head_dim
    return keys.model(
        layers(
            keys,
            [rope if window is None else windowed_rope for window in windows],
            windows=windows,
            mixer={
                "scale": default_scale(scored_width),
                "scale_queries": True,
                "soft_cap": keys.real("attn_logit_softcapping", 50.0),
            },
            ffn={"activation": "gelu"},
            mixer_post_norm=keys.rms("post_attention_norm"),
            ffn_post_norm=keys.rms("post_ffw_norm"),
            stream_name="sa_out",
        ),
        embedding_scale=math.sqrt(keys.d_model),
        final_soft_cap=keys.real("final_logit_softcapping", 30.0),
        tied=True,
    )
