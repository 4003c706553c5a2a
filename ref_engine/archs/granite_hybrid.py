"""Granite 4: Mamba 2 or attention, then a mixture of experts or a dense network, all scaled as Granite is.

llama.cpp: src/models/granite-hybrid.cpp. Layers without key/value heads are the recurrent ones. The attention turns by
position unless rope.scaling.finetuned says that it does not.
"""

from __future__ import annotations

from ref_engine.archs.experts import has_experts, moe, read_routing, shared_ffn
from ref_engine.archs.keys import Heads, Keys
from ref_engine.archs.recurrent import attention, mamba2
from ref_engine.spec import FfnSpec, LayerSpec, ModelSpec
from ref_engine.spec.parts import Part


def spec(keys: Keys) -> ModelSpec:
    widths = keys.per_layer("feed_forward_length")
    logit_scale = keys.real("logit_scale", 0.0)
    layers = (
        LayerSpec(
            _mixer(keys, i, heads),
            _ffn(keys, i, width),
            mixer_norm=keys.rms("attn_norm"),
            ffn_norm=keys.rms("ffn_norm"),
            residual_scale=keys.real("residual_scale", 0.0) or None,
        )
        for i, (heads, width) in enumerate(zip(keys.heads(recurrent=True), widths, strict=True))
    )
    return keys.model(
        layers,
        embedding_scale=keys.real("embedding_scale", 0.0) or None,
        logit_scale=1 / logit_scale if logit_scale else None,
        ignored=("rope_freqs.weight",),
    )


def _mixer(keys: Keys, layer: int, heads: Heads) -> Part:
    if heads.n_head_kv == 0:
        return mamba2(keys)
    turned = keys.boolean("rope.scaling.finetuned", True)
    rope = keys.rope(heads.head_dim, "adjacent") if turned else None
    return attention(keys, layer, heads, rope, scaled=True, output_bias="may")


def _ffn(keys: Keys, layer: int, width: int) -> Part:
    if not has_experts(keys):
        return FfnSpec(width, "silu", bias="may")
    shared = keys.integer("expert_shared_feed_forward_length", 0, least=0)
    return moe(
        keys,
        layer,
        width=width,
        routing=read_routing(keys, scale=False),
        shared=shared_ffn(shared) if shared else None,
    )
