"""PLaMo 1 and 3 (llama.cpp: src/models/plamo.cpp and plamo3.cpp).

The first has both halves side by side after one norm. The third has norms before and after both halves and on the
heads, and windows in seven of eight layers.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec

_WINDOW_PERIOD = 8
_NAMES = {
    "Qcur_mapped": "Qcur",
    "Kcur_mapped": "Kcur",
    "Qcur_normed": "attn_q_norm",
    "Kcur_normed": "attn_k_norm",
    "Qcur": None,
    "Kcur": None,
}


def plamo(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none", n_rot=keys.head_dim)
    return keys.model(layers(keys, rope, ffn_norm=None, parallel=True), tied=False)


def plamo3(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    windows = keys.windows(_WINDOW_PERIOD)
    return keys.model(
        layers(
            keys,
            [rope if window is None else keys.windowed_rope(rope) for window in windows],
            windows=windows,
            mixer={
                "fused": True,
                "bias": "no",
                "q_norm": keys.rms("attn_q_norm"),
                "k_norm": keys.rms("attn_k_norm"),
            },
            ffn={"fused": True},
            mixer_post_norm=keys.rms("post_attention_norm", suffix=""),
            ffn_post_norm=keys.rms("post_ffw_norm", suffix=""),
            stream_name="attn_residual",
            names=_NAMES,
        )
    )
