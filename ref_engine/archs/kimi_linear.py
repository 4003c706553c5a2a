"""Kimi Linear: Kimi delta attention, and in some layers latent attention without positions.

llama.cpp: kimi-linear.cpp. Layers without key/value heads are the recurrent ones.
"""

from __future__ import annotations

from ref_engine.archs.experts import leading_dense
from ref_engine.archs.keys import Keys
from ref_engine.archs.latent import layer, routed_ffn, widths
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import KdaSpec, LatentAttentionSpec, ModelSpec
from ref_engine.spec.parts import Part


def spec(keys: Keys) -> ModelSpec:
    n_head_kv = keys.per_layer("attention.head_count_kv", least=0)
    n_dense = leading_dense(keys)
    n_shared = max(1, keys.integer("expert_shared_count", least=0))
    shared_width = n_shared * keys.per_layer("expert_feed_forward_length")[0]
    return keys.model(
        layer(
            keys,
            _latent(keys, i) if n_head_kv[i] else _delta(keys, i),
            routed_ffn(keys, i, n_dense, normalise=True, bias="must", shared_width=shared_width),
        )
        for i in range(keys.n_layer)
    )


def n_head(keys: Keys) -> int:
    """That of the first layer counts for all; others may be said to have none."""
    first = keys.per_layer("attention.head_count", least=0)[0]
    if not first:
        raise ModelError(f"metadata key {keys.arch}.attention.head_count: the first layer has no heads")
    return first


def _latent(keys: Keys, i: int) -> Part:
    w = widths(keys)
    if not w.absorbed:
        raise ModelError(f"metadata key {keys.arch}.attention.key_length_mla is missing")
    return LatentAttentionSpec(
        n_head=n_head(keys),
        nope_dim=w.nope,
        rope_dim=w.rope,
        v_dim=w.v,
        kv_rank=keys.integer("attention.kv_lora_rank"),
        scale=default_scale(w.nope + w.rope),
        rope=None,
        kv_norm=keys.rms("attn_kv_a_norm"),
        absorbed=f"blk.{i}.attn_kv_b.weight" not in keys.tensors,
    )


def _delta(keys: Keys, i: int) -> Part:
    return KdaSpec(
        n_head=n_head(keys),
        head_dim=keys.integer("kda.head_dim"),
        conv=keys.integer("ssm.conv_kernel"),
        norm=keys.rms("ssm_norm"),
        l2_eps=keys.real("attention.layer_norm_rms_epsilon"),
        fused=f"blk.{i}.attn_qkv.weight" in keys.tensors,
    )
