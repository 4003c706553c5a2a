"""Llama 4: chunks of positions in three of four layers and queries that grow with their position in the others, norms
on turned heads, weights that multiply what an expert reads (llama.cpp: llama4.cpp)."""

from __future__ import annotations

from dataclasses import replace

from ref_engine.archs.experts import dense_ffn, expert_layers, moe, read_routing, shared_ffn
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec
from ref_engine.spec.attention import Temperature
from ref_engine.spec.parts import Part

_CHUNK, _CHUNK_PERIOD = 8192, 4
_UNTURNED_PERIOD = 4
_TEMPERATURE = Temperature(scale=0.1, step=8192, offset=1.0)
_EXPERTS_WITHOUT_HEAD_NORMS = 128  # Maverick


def spec(keys: Keys) -> ModelSpec:
    chunked = keys.integer("attention.sliding_window", _CHUNK, least=0) > 0
    rope = keys.rope(keys.head_dim, "adjacent", factors="plain")
    turned_in_chunks = replace(rope, base=keys.positive("rope.freq_base_swa", rope.base))
    windows = keys.windows(_CHUNK_PERIOD, _CHUNK) if chunked else [None] * keys.n_layer
    unturned = _UNTURNED_PERIOD if chunked else keys.n_layer
    norm = None
    if keys.integer("expert_count") != _EXPERTS_WITHOUT_HEAD_NORMS:
        norm = keys.rms("none", weight="no")
    step = keys.integer("interleave_moe_layer_step", least=0)
    routing = read_routing(keys, "sigmoid", normalise=False, scale=False, select_by="logits")

    def mixer(i: int) -> AttentionSpec:
        chunk = None if windows[i] is None else _CHUNK
        if (i + 1) % unturned == 0:
            return attention(keys, i, None, chunk=chunk, temperature=_TEMPERATURE if chunked else None)
        turned = rope if chunk is None else turned_in_chunks
        return attention(keys, i, turned, chunk=chunk, q_norm=norm, k_norm=norm, norm_after_rope=True)

    def ffn(i: int) -> Part:
        if step == 0 or (i + 1) % step:
            return dense_ffn(keys, i)
        width = keys.per_layer("expert_feed_forward_length")[i]
        shared = shared_ffn(width)
        return moe(keys, i, routing=routing, weigh_input=True, shared=shared, shared_name="ffn_moe_shexp")

    return keys.model(expert_layers(keys, mixer, ffn))
