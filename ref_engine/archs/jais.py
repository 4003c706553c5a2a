"""Jais 1 and 2: LayerNorm and biases (llama.cpp: src/models/jais.cpp and jais2.cpp).

The first has ALiBi, gated SiLU and scores divided by the head width itself (it was trained with muP); the second
rotary embedding and squared ReLU.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def jais(keys: Keys) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            None,
            keys.layer_norm,
            mixer={
                "fused": True,
                "bias": "must",
                "output_bias": "must",
                "scale": 1 / keys.head_dim,
                "alibi": keys.real("attention.max_alibi_bias", 0.0),
            },
            ffn={"bias": "must"},
        ),
        output_norm=keys.layer_norm("output_norm"),
        tied=False,
    )


def jais2(keys: Keys) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "halves", factors="none"),
            keys.layer_norm,
            mixer={"output_bias": "must"},
            ffn={"activation": "relu_sqr", "gated": False, "bias": "must"},
            names={"Qcur_mapped": "Qcur", "Kcur_mapped": "Kcur", "Qcur": "Qcur_rope", "Kcur": "Kcur_rope"},
        ),
        output_norm=keys.layer_norm("output_norm"),
    )
