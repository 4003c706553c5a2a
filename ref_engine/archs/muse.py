"""Muse Glimmer: gates after the heads, norms everywhere, rotary embedding only in layers with a window.

llama.cpp: src/models/muse-glimmer.cpp.
"""

from __future__ import annotations

from dataclasses import replace

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec

_POST_NORM_EPS = 1e-8
_WINDOW_PERIOD = 4
_NAMES = {
    "Qcur_mapped": "Qcur",
    "Kcur_mapped": "Kcur",
    "Qcur": "Qcur_rope",
    "Kcur": "Kcur_rope",
    "attn_gate": "attn_gate_sig",
    "kqv_out": "attn_out",
    "attn_out": "attn_o_proj",
}


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    windowed_rope = keys.windowed_rope(rope, rope.base)
    windows = keys.windows(_WINDOW_PERIOD, required=True)
    return keys.model(
        layers(
            keys,
            [None if window is None else windowed_rope for window in windows],
            windows=windows,
            mixer={"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm"), "gate": "feature"},
            mixer_post_norm=replace(keys.rms("post_attention_norm"), eps=_POST_NORM_EPS),
            names=_NAMES,
            ffn_post_norm=replace(keys.rms("post_ffw_norm"), eps=_POST_NORM_EPS),
        ),
        embedding_norm=keys.rms("token_embd_norm", weight="no"),
        logit_scale=keys.real("logit_scale"),
        final_soft_cap=keys.real("final_logit_softcapping", 30.0) or None,
        tied=False,
    )
