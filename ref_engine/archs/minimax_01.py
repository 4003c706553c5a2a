"""MiniMax-01: lightning attention in seven of eight layers, then a mixture of experts.

llama.cpp: src/models/minimax-01.cpp. What each half is added to is its normed input, times the residual scale.
"""

from __future__ import annotations

import math

from ref_engine.archs.experts import moe, read_routing
from ref_engine.archs.keys import Heads, Keys
from ref_engine.archs.recurrent import attention, has_heads, recurrent_layers
from ref_engine.spec import LayerSpec, LightningSpec, ModelSpec

_INTERVAL = 8


def spec(keys: Keys) -> ModelSpec:
    heads = keys.heads()[0]
    rope = keys.rope(heads.head_dim, "halves", factors="none")
    routing = read_routing(keys, scale=False)
    widths = keys.per_layer("feed_forward_length")
    return keys.model(
        LayerSpec(
            _lightning(keys, heads, i) if recurrent else attention(keys, i, heads, rope),
            moe(keys, i, width=widths[i], routing=routing),
            mixer_norm=keys.rms("attn_norm"),
            ffn_norm=keys.rms("ffn_norm"),
            normed_residual=keys.real("residual_scale"),
        )
        for i, recurrent in enumerate(recurrent_layers(keys, _INTERVAL))
    )


def _lightning(keys: Keys, heads: Heads, layer: int) -> LightningSpec:
    """The slopes are those of ALiBi, less steep from layer to layer."""
    has_heads(keys, layer, heads)
    start = 2 ** -(2 ** -(math.log2(heads.n_head) - 3))
    by_layer = 1 - layer / max(1, keys.n_layer - 1) + 1e-5
    slopes = tuple(start ** (h + 1) * by_layer for h in range(heads.n_head))
    return LightningSpec(heads.n_head, heads.head_dim, slopes, keys.rms("attn_norm_2"))
