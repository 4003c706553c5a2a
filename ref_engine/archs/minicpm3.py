"""MiniCPM 3: latent attention with the keys and values of each head kept, scaled residuals (llama.cpp: minicpm3.cpp).

The factors of the embedding (12), of the residuals (1.4) and of the width that the output was tuned at (256) are
constants of the family.
"""

from __future__ import annotations

import math

from ref_engine.archs.keys import Keys
from ref_engine.reference.attention import default_scale
from ref_engine.spec import FfnSpec, LatentAttentionSpec, LayerSpec, ModelSpec

_EMBEDDING_SCALE = 12.0
_DEPTH_SCALE = 1.4
_BASE_WIDTH = 256


def spec(keys: Keys) -> ModelSpec:
    heads = keys.heads()[0]
    rope = keys.rope(heads.head_dim, "halves", factors="longrope")
    attention = LatentAttentionSpec(
        n_head=heads.n_head,
        nope_dim=heads.head_dim - rope.n_rot,
        rope_dim=rope.n_rot,
        v_dim=heads.v_dim,
        kv_rank=keys.integer("attention.kv_lora_rank"),
        scale=default_scale(heads.head_dim),
        rope=rope,
        kv_norm=keys.rms("attn_kv_a_norm"),
        q_rank=keys.integer("attention.q_lora_rank"),
        q_norm=keys.rms("attn_q_a_norm"),
        absorbed=False,
    )
    layer = LayerSpec(
        attention,
        FfnSpec(keys.per_layer("feed_forward_length")[0], "silu"),
        mixer_norm=keys.rms("attn_norm"),
        ffn_norm=keys.rms("ffn_norm"),
        residual_scale=_DEPTH_SCALE / math.sqrt(keys.n_layer),
    )
    return keys.model([layer] * keys.n_layer, embedding_scale=_EMBEDDING_SCALE, logit_scale=_BASE_WIDTH / keys.d_model)
