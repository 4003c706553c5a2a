"""Ling 3 (Bailing): Kimi delta attention with bounded decays, and latent attention with a gate for each head.

llama.cpp: bailingmoe3.cpp. Layers without key/value heads are the recurrent ones.
"""

from __future__ import annotations

from ref_engine.archs.experts import leading_dense
from ref_engine.archs.keys import Keys
from ref_engine.archs.kimi_linear import n_head
from ref_engine.archs.latent import layer, routed_ffn, widths
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import KdaSpec, LatentAttentionSpec, ModelSpec
from ref_engine.spec.parts import Part

_NO_LIMIT = 1e-6  # limits up to this one are none


def spec(keys: Keys) -> ModelSpec:
    n_head_kv = keys.per_layer("attention.head_count_kv", least=0)
    n_dense = leading_dense(keys, required=True)
    limits = keys.reals_per_layer("swiglu_clamp_exp", 0.0)
    shared_limits = keys.reals_per_layer("swiglu_clamp_shexp", 0.0)
    return keys.model(
        layer(
            keys,
            _latent(keys) if n_head_kv[i] else _delta(keys),
            routed_ffn(
                keys,
                i,
                n_dense,
                bias="must",
                shared_width=_shared_width(keys),
                activation=_limited(limits[i]),
                shared_activation=_limited(shared_limits[i]),
                dense_activation=_limited(shared_limits[i]),
            ),
        )
        for i in range(keys.n_layer)
    )


def _limited(limit: float) -> tuple[str, tuple[float, ...]]:
    return ("swiglu_limit", (limit,)) if limit > _NO_LIMIT else ("silu", ())


def _shared_width(keys: Keys) -> int:
    said = keys.integer("expert_shared_feed_forward_length", 0, least=0)
    n_shared = max(1, keys.integer("expert_shared_count", least=0))
    return said or n_shared * keys.per_layer("expert_feed_forward_length")[0]


def _latent(keys: Keys) -> Part:
    w = widths(keys)
    if not w.absorbed:
        raise ModelError(f"metadata key {keys.arch}.attention.key_length_mla is missing")
    sections, q_rank = keys.sections(), keys.integer("attention.q_lora_rank", 0, least=0)
    head_dim = w.nope + w.rope
    return LatentAttentionSpec(
        n_head=n_head(keys),
        nope_dim=w.nope,
        rope_dim=w.rope,
        v_dim=w.v,
        kv_rank=keys.integer("attention.kv_lora_rank"),
        scale=default_scale(head_dim),
        rope=keys.rope(head_dim, "halves" if sections else "adjacent", factors="none", sections=sections),
        kv_norm=keys.rms("attn_kv_a_norm"),
        q_rank=q_rank or None,
        q_norm=keys.rms("attn_q_a_norm"),
        gated=True,
    )


def _delta(keys: Keys) -> Part:
    if not keys.boolean("kda.safe_gate", True):
        raise ModelError(f"metadata key {keys.arch}.kda.safe_gate is False, expected True")
    bound = keys.real("kda.gate_lower_bound")
    if bound >= 0:
        raise ModelError(f"metadata key {keys.arch}.kda.gate_lower_bound is {bound}, expected less than 0")
    return KdaSpec(
        n_head=n_head(keys),
        head_dim=keys.integer("kda.head_dim"),
        conv=keys.integer("ssm.conv_kernel"),
        norm=keys.rms("ssm_norm"),
        l2_eps=keys.real("attention.layer_norm_rms_epsilon"),
        bound=bound,
        negated=False,
        decay=("ssm_f_a",),
        gate=("ssm_g_a",),
    )
