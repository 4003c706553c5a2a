"""Dream and LLaDA: every token sees the whole text, and text is made by filling in masks.

llama.cpp: src/models/dream.cpp and llada.cpp, whose graphs leave out the biases and factors named here.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def dream(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    return keys.model(layers(keys, rope, mixer={"causal": False}), causal=False, ignored=("output.bias",))


def llada(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    unused = ("rope_freqs.weight", "blk.*.attn_output.bias", "blk.*.ffn_*.bias")
    return keys.model(layers(keys, rope, mixer={"causal": False}), causal=False, ignored=unused)
