"""EXAONE 3 and 4 (llama.cpp: src/models/exaone.cpp and exaone4.cpp).

The third is Llama's layer. The fourth has its norms after both halves and on each head, and in its 64 layers (32B)
three of four windows of 4096 with rotary embedding, while the others see everything and turn nothing.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec

_LAYERS_WITH_WINDOWS = 64
_WINDOW, _WINDOW_PERIOD = 4096, 4


def exaone(keys: Keys) -> ModelSpec:
    return keys.model(layers(keys, keys.rope(keys.head_dim, "halves", factors="plain")))


def exaone4(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="plain")
    windowed = keys.n_layer == _LAYERS_WITH_WINDOWS
    windows = keys.windows(_WINDOW_PERIOD, _WINDOW) if windowed else [None] * keys.n_layer
    return keys.model(
        layers(
            keys,
            [None if windowed and window is None else rope for window in windows],
            windows=windows,
            mixer={"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")},
            mixer_norm=None,
            mixer_post_norm=keys.rms("post_attention_norm"),
            ffn_norm=None,
            ffn_post_norm=keys.rms("post_ffw_norm"),
        )
    )
