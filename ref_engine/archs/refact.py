"""Refact: Llama's layer with ALiBi in place of rotary embedding (llama.cpp: src/models/refact.cpp).

Its files may hold biases and factors of frequencies that are not used there.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec

_LARGEST_SLOPE = 8.0


def spec(keys: Keys) -> ModelSpec:
    unused = ("rope_f*.weight", "blk.*.attn_output.bias", "blk.*.ffn_*.bias")
    return keys.model(layers(keys, None, mixer={"alibi": _LARGEST_SLOPE}), ignored=unused)
