"""Talkie: norms without weights, a gain for each query head, and the embeddings added again after each layer.

llama.cpp: src/models/talkie.cpp.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec, NormSpec

_NAMES = {
    "Qcur_mapped": "Qcur",
    "Kcur_mapped": "Kcur",
    "Qcur_normed": "Qcur_norm",
    "Kcur_normed": "Kcur_norm",
    "Qcur": None,
    "Kcur": None,
}


def spec(keys: Keys) -> ModelSpec:
    def bare(name: str) -> NormSpec:
        return keys.rms(name, weight="no")

    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "halves", factors="none"),
            bare,
            mixer={
                "q_norm": keys.rms("attn_q_norm"),
                "k_norm": bare("attn_k_norm"),
                "norm_over": "gain",
                "norm_after_rope": True,
            },
            ffn={"scales": "may"},
            embedding_skip=True,
            names=_NAMES,
        ),
        embedding_norm=bare("token_embd_norm"),
        output_norm=bare("output_norm"),
        logit_scale=keys.real("logit_scale"),
        tied=False,
    )
