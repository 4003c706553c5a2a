"""Nemotron-H, dense and as a mixture of experts: each layer is a Mamba 2, an attention or a feed-forward network.

llama.cpp: src/models/nemotron-h.cpp. A layer without key/value heads and without a feed-forward width is recurrent,
one with a width is a network of relu squared. Positions are the recurrent layers' business.
"""

from __future__ import annotations

from ref_engine.archs.experts import SELECTION_BIAS, has_experts, moe, read_routing, shared_ffn
from ref_engine.archs.keys import Heads, Keys
from ref_engine.archs.recurrent import attention, mamba2
from ref_engine.errors import ModelError
from ref_engine.spec import FfnSpec, LatentSpec, LayerSpec, ModelSpec, NormSpec
from ref_engine.spec.parts import Part

_ACTIVATION = "relu_sqr"


def spec(keys: Keys) -> ModelSpec:
    eps = keys.real("attention.layer_norm_rms_epsilon", keys.real("attention.layer_norm_epsilon"))
    widths = keys.per_layer("feed_forward_length", least=0)
    layers = (
        LayerSpec(
            _part(keys, i, heads, width, eps),
            None,
            mixer_norm=NormSpec("attn_norm", eps),
            stream_name="nemotron_h_block_out",
        )
        for i, (heads, width) in enumerate(zip(keys.heads(recurrent=True), widths, strict=True))
    )
    return keys.model(layers, output_norm=NormSpec("output_norm", eps))


def _part(keys: Keys, layer: int, heads: Heads, width: int, eps: float) -> Part:
    if width == 0 and heads.n_head_kv == 0:
        return mamba2(keys, norm=NormSpec("ssm_norm", eps))
    if width == 0:
        return attention(keys, layer, heads, output_bias="may")
    if not has_experts(keys):
        return FfnSpec(width, _ACTIVATION, gated=False, bias="may", scales="may")
    latent = keys.integer("moe_latent_size", 0, least=0) or keys.d_model
    narrowed = f"blk.{layer}.ffn_latent_down.weight" in keys.tensors
    shared = keys.integer("expert_shared_feed_forward_length")
    return moe(
        keys,
        layer,
        width=_expert_width(keys, layer, width),
        activation=_ACTIVATION,
        gated=False,
        scales="may",
        routing=read_routing(keys, "sigmoid", normalise="file", bias=SELECTION_BIAS, bias_presence="must"),
        shared=shared_ffn(shared, _ACTIVATION, gated=False, scales="may"),
        latent=LatentSpec(latent, "ffn_latent_down", "ffn_latent_up") if narrowed else None,
    )


def _expert_width(keys: Keys, layer: int, width: int) -> int:
    """That of the layer's experts; files without share the layer's width among the experts that a token takes."""
    used = max(1, keys.per_layer("expert_used_count", least=0)[layer])
    found = keys.per_layer("expert_feed_forward_length", 0, least=0)[layer] or width // used
    if found == 0:
        raise ModelError(f"metadata key {keys.arch}.expert_feed_forward_length is missing for layer {layer}")
    return found
