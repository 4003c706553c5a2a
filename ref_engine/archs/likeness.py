"""Families with Llama's layer as it is, or nearly so.

llama.cpp: src/models/internlm2.cpp, xverse.cpp, smollm3.cpp, seed-oss.cpp, ernie4-5.cpp.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec

_UNTURNED_PERIOD = 4


def twin(keys: Keys) -> ModelSpec:
    """InternLM 2 and XVERSE: the same, under other names."""
    return keys.model(layers(keys, keys.rope(keys.head_dim, "adjacent", factors="none")), tied=False)


def smollm3(keys: Keys) -> ModelSpec:
    """Every fourth layer turns nothing."""
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    return keys.model(layers(keys, [rope if (i + 1) % _UNTURNED_PERIOD else None for i in range(keys.n_layer)]))


def seed_oss(keys: Keys) -> ModelSpec:
    """The norm before the feed-forward network is named after the attention that it follows."""
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    return keys.model(layers(keys, rope, ffn_norm=keys.rms("post_attention_norm"), ffn_norm_name="attn_post_norm"))


def ernie4_5(keys: Keys) -> ModelSpec:
    """A bias after attention may be in the file and is not used in llama.cpp."""
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    return keys.model(layers(keys, rope), ignored=("blk.*.attn_output.bias",))
