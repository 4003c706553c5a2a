"""Phi 2 and Phi 3 (llama.cpp: src/models/phi2.cpp and phi3.cpp).

The second has LayerNorm and both halves side by side; the third is Llama's layer with fused maps and two sets of
factors of frequencies, for contexts within and beyond the original length. Its window is not used there.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def phi2(keys: Keys) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "halves", factors="none"),
            keys.layer_norm,
            mixer={"output_bias": "must", "scale_queries": True},
            ffn={"activation": "gelu", "gated": False, "bias": "must"},
            ffn_norm=None,
            parallel=True,
        ),
        output_norm=keys.layer_norm("output_norm"),
        output_bias="must",
        tied=False,
    )


def phi3(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="longrope")
    names = {"Qcur": None, "Qcur_scaled": "Qcur"}
    return keys.model(layers(keys, rope, mixer={"scale_queries": True}, ffn={"fused": True}, names=names))
