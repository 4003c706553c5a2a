"""GLM 4 (0414): norms before and after both halves, gate and up in one matrix (llama.cpp: src/models/glm4.cpp).

The version that sees has M-RoPE, and then features half a head apart belong together instead of neighbours.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec, Pairing


def spec(keys: Keys) -> ModelSpec:
    sections = keys.sections()
    pairing: Pairing = "adjacent" if sections is None else "halves"
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, pairing, factors="none", sections=sections),
            ffn={"fused": True},
            mixer_post_norm=keys.rms("post_attention_norm"),
            ffn_post_norm=keys.rms("post_ffw_norm"),
            names={"attn_post_norm": "post_attn_norm", "ffn_post_norm": "post_mlp_norm"},
        )
    )
