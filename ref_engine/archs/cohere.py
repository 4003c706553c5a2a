"""Command R and Command A: both halves of a layer read the same norm, and the embedding is the output matrix.

llama.cpp: src/models/command-r.cpp and cohere2.cpp. The second has windows, and turns only in layers with one.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec, NormSpec

_WINDOW_PERIOD = 4
_LAYERS_WITH_HEAD_NORMS = 64  # Command R+


def command_r(keys: Keys) -> ModelSpec:
    mixer = {}
    if keys.n_layer >= _LAYERS_WITH_HEAD_NORMS:
        mixer = {"q_norm": _norm(keys, "attn_q_norm"), "k_norm": _norm(keys, "attn_k_norm"), "norm_over": "heads"}
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    return keys.model(
        layers(keys, rope, lambda name: _norm(keys, name), mixer=mixer, ffn_norm=None, parallel=True),
        output_norm=_norm(keys, "output_norm"),
        tied=True,
        logit_scale=keys.real("logit_scale", 0.0) or None,
    )


def cohere2(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    windows = keys.windows(_WINDOW_PERIOD, required=True)
    return keys.model(
        layers(
            keys,
            [None if window is None else rope for window in windows],
            lambda name: _norm(keys, name),
            windows=windows,
            ffn={"scales": "may"},
            ffn_norm=None,
            parallel=True,
        ),
        output_norm=_norm(keys, "output_norm"),
        tied=True,
        logit_scale=keys.real("logit_scale") or None,
    )


def _norm(keys: Keys, name: str) -> NormSpec:
    return keys.layer_norm(name, bias="no")
