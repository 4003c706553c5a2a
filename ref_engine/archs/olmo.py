"""OLMo 1 and 2 (llama.cpp: src/models/olmo.cpp and olmo2.cpp).

The first has LayerNorms without weights and clamped projections; the second norms after both halves and across all
heads, and from OLMo 3 on windows in three of four layers, which the scaling of the others leaves alone.
"""

from __future__ import annotations

from dataclasses import replace

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec, NormSpec

_WINDOW_PERIOD = 4


def olmo(keys: Keys) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "adjacent", factors="none"),
            lambda name: _bare_norm(keys, name),
            mixer={"clamp": keys.real("attention.clamp_kqv", 0.0)},
        ),
        output_norm=_bare_norm(keys, "output_norm"),
    )


def olmo2(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    plain = replace(rope, freq_scale=1.0, ext_factor=0.0, magnitude=1.0)
    windows = keys.windows(_WINDOW_PERIOD)
    return keys.model(
        layers(
            keys,
            [rope if window is None else plain for window in windows],
            windows=windows,
            mixer={"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm"), "norm_over": "all"},
            mixer_norm=None,
            mixer_post_norm=keys.rms("post_attention_norm"),
            ffn_norm=None,
            ffn_post_norm=keys.rms("post_ffw_norm"),
        ),
        tied=False,
    )


def _bare_norm(keys: Keys, name: str) -> NormSpec:
    return keys.layer_norm(name, bias="no", weight="no")
