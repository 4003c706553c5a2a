"""Pangu Embedded: Llama's layer with a bias after attention (llama.cpp: src/models/pangu-embed.cpp).

Its files may hold factors of frequencies, which are not used there.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    return keys.model(layers(keys, rope, mixer={"output_bias": "must"}), ignored=("rope_f*.weight",))
