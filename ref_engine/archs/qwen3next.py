"""Qwen3-Next and Qwen3.5, dense and as mixtures of experts: gated delta nets in three of four layers.

llama.cpp: src/models/qwen3next.cpp, qwen35.cpp, qwen35moe.cpp. The attention of the other layers is gated by what
comes with the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ref_engine.archs.experts import moe, read_routing, shared_ffn
from ref_engine.archs.keys import Keys
from ref_engine.archs.recurrent import attention, divides, recurrent_layers
from ref_engine.errors import ModelError
from ref_engine.spec import DeltaNetSpec, FfnSpec, LayerSpec, ModelSpec, MoeSpec, RopeSpec
from ref_engine.spec.parts import Part

_INTERVAL = 4


def spec(keys: Keys) -> ModelSpec:
    """Qwen3-Next. Old files have the projections of a delta net in one matrix; in a file with both it has no part."""
    nets = []
    for i in range(keys.n_layer):
        mixed = f"blk.{i}.attn_qkv.weight" not in keys.tensors
        nets.append(_delta_net(keys, mixed=mixed, paired=True))
    return _model(keys, nets, _mixtures(keys), _rope(keys), ignored=("blk.*.ssm_in.weight",))


def spec35(keys: Keys) -> ModelSpec:
    ffns = [FfnSpec(width, "silu", scales="may") for width in keys.per_layer("feed_forward_length")]
    return _model(keys, [_delta_net(keys, tiled=True)] * keys.n_layer, ffns, _sectioned_rope(keys))


def spec35_moe(keys: Keys) -> ModelSpec:
    return _model(keys, [_delta_net(keys, tiled=True)] * keys.n_layer, _mixtures(keys), _sectioned_rope(keys))


def _rope(keys: Keys, **features: Any) -> RopeSpec:
    return keys.rope(keys.heads()[0].head_dim, "halves", factors="none", **features)


def _sectioned_rope(keys: Keys) -> RopeSpec:
    return _rope(keys, sections=keys.sections(required=True), interleaved=True)


def _delta_net(keys: Keys, **features: Any) -> DeltaNetSpec:
    n_head, n_key_head, width = (keys.integer(f"ssm.{k}") for k in ("time_step_rank", "group_count", "state_size"))
    divides(keys, "ssm.group_count", n_key_head, n_head)
    inner = keys.integer("ssm.inner_size")
    if inner != n_head * width:
        raise ModelError(f"metadata key {keys.arch}.ssm.inner_size is {inner}, expected {n_head * width}")
    norm = keys.rms("ssm_norm")
    return DeltaNetSpec(n_head, n_key_head, width, keys.integer("ssm.conv_kernel"), norm, norm.eps, **features)


def _mixtures(keys: Keys) -> list[MoeSpec]:
    routing = read_routing(keys, scale=False)
    used, dense = keys.per_layer("expert_used_count"), keys.per_layer("feed_forward_length", 0, least=0)
    widths = keys.per_layer("expert_feed_forward_length", 0, least=0)
    shared = keys.integer("expert_shared_feed_forward_length", 0, least=0)
    return [
        moe(
            keys,
            i,
            width=_width(keys, widths[i] or dense[i] // used[i]),
            routing=routing,
            merged=True,
            scales="may",
            shared=shared_ffn(_width(keys, shared or dense[i]), scales="may"),
            shared_gate=True,
        )
        for i in range(keys.n_layer)
    ]


def _width(keys: Keys, width: int) -> int:
    if width == 0:
        raise ModelError(f"metadata key {keys.arch}.expert_feed_forward_length is missing or 0")
    return width


def _model(
    keys: Keys, nets: Sequence[DeltaNetSpec], ffns: Sequence[Part], rope: RopeSpec, **features: Any
) -> ModelSpec:
    layers = (
        LayerSpec(
            nets[i]
            if recurrent
            else attention(
                keys,
                i,
                keys.heads()[i],
                rope,
                gate="query",
                q_norm=keys.rms("attn_q_norm"),
                k_norm=keys.rms("attn_k_norm"),
            ),
            ffns[i],
            mixer_norm=keys.rms("attn_norm"),
            ffn_norm=keys.rms("post_attention_norm"),
            stream_name="attn_residual",
            ffn_norm_name="attn_post_norm",
        )
        for i, recurrent in enumerate(recurrent_layers(keys, _INTERVAL))
    )
    return keys.model(layers, **features)
