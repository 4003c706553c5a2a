"""Baichuan: rotary in the 7B model, ALiBi in the 13B one, which only their numbers of layers tell apart.

llama.cpp: src/models/baichuan.cpp; other numbers of layers have neither there.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec

_LAYERS_OF_7B, _LAYERS_OF_13B = 32, 40


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="none") if keys.n_layer == _LAYERS_OF_7B else None
    alibi = 8.0 if keys.n_layer == _LAYERS_OF_13B else 0.0
    return keys.model(layers(keys, rope, mixer={"alibi": alibi}), tied=False)
