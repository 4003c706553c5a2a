"""LFM2, dense and as a mixture of experts: gated short convolutions, with attention in some layers.

llama.cpp: src/models/lfm2.cpp, lfm2moe.cpp. The output norm has the name of an embedding norm.
"""

from __future__ import annotations

from collections.abc import Sequence

from ref_engine.archs.experts import SELECTION_BIAS, leading_dense, moe, read_routing
from ref_engine.archs.keys import Heads, Keys
from ref_engine.archs.recurrent import attention
from ref_engine.errors import ModelError
from ref_engine.spec import FfnSpec, LayerSpec, ModelSpec, ShortConvSpec
from ref_engine.spec.parts import Part


def spec(keys: Keys) -> ModelSpec:
    window = keys.integer("attention.sliding_window", 0, least=0) or None
    widths = keys.per_layer("feed_forward_length")
    return _model(keys, [FfnSpec(width, "silu") for width in widths], window)


def spec_moe(keys: Keys) -> ModelSpec:
    widths, n_dense = keys.per_layer("feed_forward_length"), leading_dense(keys)
    routing = read_routing(keys, "file", scale=False, bias=SELECTION_BIAS, bias_presence="must")
    ffns = [FfnSpec(width, "silu") if i < n_dense else moe(keys, i, routing=routing) for i, width in enumerate(widths)]
    return _model(keys, ffns, None)


def _model(keys: Keys, ffns: Sequence[Part], window: int | None) -> ModelSpec:
    layers = (
        LayerSpec(_mixer(keys, i, heads, window), ffn, mixer_norm=keys.rms("attn_norm"), ffn_norm=keys.rms("ffn_norm"))
        for i, (heads, ffn) in enumerate(zip(keys.heads(recurrent=True), ffns, strict=True))
    )
    # dense_2 makes the vectors of LFM2-ColBERT
    return keys.model(layers, output_norm=keys.rms("token_embd_norm"), ignored=("dense_2.*",))


def _mixer(keys: Keys, layer: int, heads: Heads, window: int | None) -> Part:
    if heads.n_head_kv == 0:
        length = keys.integer("shortconv.l_cache", least=2)
        if not keys.causal and length % 2 == 0:
            raise ModelError(f"metadata key {keys.arch}.shortconv.l_cache is {length}, expected an odd number")
        return ShortConvSpec(length, keys.d_model, causal=keys.causal)
    return attention(
        keys,
        layer,
        heads,
        keys.rope(heads.head_dim, "halves", factors="none"),
        window=window,
        window_behind=True,
        q_norm=keys.rms("attn_q_norm"),
        k_norm=keys.rms("attn_k_norm"),
    )
