"""Kimi K3: Kimi delta attention with bounded decays and gated latent attention without positions, attention over depth,
and experts that work on a narrower vector.

llama.cpp: kimi-k3.cpp. Layers without key/value heads are the recurrent ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from ref_engine.archs.experts import SELECTION_BIAS, leading_dense, moe, read_routing, shared_ffn
from ref_engine.archs.keys import Keys
from ref_engine.archs.kimi_linear import n_head
from ref_engine.archs.latent import widths
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import (
    DepthSpec,
    FfnSpec,
    KdaSpec,
    LatentAttentionSpec,
    LatentSpec,
    LayerSpec,
    ModelSpec,
    RoutingSpec,
)
from ref_engine.spec.parts import Part

_LATENT_NAMES: Mapping[str, str | None] = {
    "attn_gate": None,
    "attn_gate_sigmoid": None,
    "attn_gated": "mla_gated",
    "attn_out": "mla_out",
}


def spec(keys: Keys) -> ModelSpec:
    block = keys.integer("attn_res.block_size", least=0)
    is_latent = [n > 0 for n in keys.per_layer("attention.head_count_kv", least=0)]
    last = keys.n_layer - 1
    eps = keys.real("attention.layer_norm_rms_epsilon")
    routing = read_routing(keys, "file", normalise="file", bias=SELECTION_BIAS, bias_presence="must")
    return keys.model(
        (
            LayerSpec(
                _latent(keys, i) if latent else _delta(keys),
                _ffn(keys, i, routing),
                mixer_norm=keys.rms("attn_norm"),
                ffn_norm=keys.rms("ffn_norm"),
                stream_name="prefix_sum_attn",
                names=_LATENT_NAMES if latent else {"attn_out": None},
                depth=DepthSpec(eps, i % block == 0, i == last) if block else None,
            )
            for i, latent in enumerate(is_latent)
        ),
        tied=False,
    )


def _latent(keys: Keys, i: int) -> LatentAttentionSpec:
    w = widths(keys)
    if not w.absorbed:
        raise ModelError(f"metadata key {keys.arch}.attention.key_length_mla is missing")
    low = f"blk.{i}.attn_q_a_norm.weight" in keys.tensors
    return LatentAttentionSpec(
        n_head=n_head(keys),
        nope_dim=w.nope,
        rope_dim=w.rope,
        v_dim=w.v,
        kv_rank=keys.integer("attention.kv_lora_rank"),
        scale=default_scale(w.nope + w.rope),
        rope=None,
        kv_norm=keys.rms("attn_kv_a_norm"),
        q_rank=keys.integer("attention.q_lora_rank") if low else None,
        q_norm=keys.rms("attn_q_a_norm"),
        gated=f"blk.{i}.attn_gate.weight" in keys.tensors,
        gate_features=True,
    )


def _delta(keys: Keys) -> KdaSpec:
    return KdaSpec(
        n_head=n_head(keys),
        head_dim=keys.integer("kda.head_dim"),
        conv=keys.integer("ssm.conv_kernel"),
        norm=keys.rms("ssm_norm"),
        l2_eps=keys.real("attention.layer_norm_rms_epsilon"),
        bound=decay_bound(keys),
        gate=("ssm_g",),
        flat=True,
    )


def decay_bound(keys: Keys) -> float | None:
    """The least logarithm of a decay; minus infinity stands for none, as in llama.cpp."""
    key = f"{keys.arch}.kda.gate_lower_bound"
    if keys.metadata.get(key, -float("inf")) == -float("inf"):
        return None
    bound = keys.real("kda.gate_lower_bound")
    if bound > 0:
        raise ModelError(f"metadata key {key} is {bound}, expected at most 0")
    return bound


def _ffn(keys: Keys, i: int, routing: RoutingSpec) -> Part:
    constants = (_beta(keys), keys.real("activation.situ_linear_beta"))
    if i < leading_dense(keys):
        return FfnSpec(keys.per_layer("feed_forward_length")[0], "situ", constants=constants)
    width = keys.per_layer("expert_feed_forward_length")[0]
    has_shared = f"blk.{i}.ffn_gate_shexp.weight" in keys.tensors
    return moe(
        keys,
        i,
        width=width,
        activation="situ",
        constants=constants,
        routing=routing,
        latent=_narrow(keys, i),
        shared=shared_ffn(width * max(1, keys.integer("expert_shared_count", least=0)), "situ", constants=constants)
        if has_shared
        else None,
    )


def _narrow(keys: Keys, i: int) -> LatentSpec | None:
    width = keys.integer("expert_latent_length", 0, least=0)
    has_norm = f"blk.{i}.ffn_routed_norm.weight" in keys.tensors
    return LatentSpec(width, norm=keys.rms("ffn_routed_norm") if has_norm else None) if width else None


def _beta(keys: Keys) -> float:
    beta = keys.real("activation.situ_beta")
    if beta == 0:
        raise ModelError(f"metadata key {keys.arch}.activation.situ_beta is 0, expected another number")
    return beta
