"""What recurrent and hybrid families read in the same way (llama.cpp: src/models/mamba-base.cpp)."""

from __future__ import annotations

from typing import Any

from ref_engine.archs.keys import Heads, Keys
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import AttentionSpec, Mamba2Spec, MambaSpec, RopeSpec


def mamba(keys: Keys, **features: Any) -> MambaSpec:
    return MambaSpec(
        inner=keys.integer("ssm.inner_size"),
        state=keys.integer("ssm.state_size"),
        conv=keys.integer("ssm.conv_kernel"),
        **({"rank": keys.integer("ssm.time_step_rank")} | features),
    )


def mamba2(keys: Keys, **features: Any) -> Mamba2Spec:
    """Its norm is an RMS norm with the model's epsilon, unless features have another or None."""
    inner, n_head, groups = (keys.integer(f"ssm.{k}") for k in ("inner_size", "time_step_rank", "group_count"))
    divides(keys, "ssm.time_step_rank", n_head, inner)
    divides(keys, "ssm.group_count", groups, n_head)
    if "norm" not in features:
        features["norm"] = keys.rms("ssm_norm")
    return Mamba2Spec(
        n_head=n_head,
        inner=inner,
        state=keys.integer("ssm.state_size"),
        groups=groups,
        conv=keys.integer("ssm.conv_kernel"),
        **features,
    )


def divides(keys: Keys, key: str, part: int, whole: int) -> None:
    """Raises ModelError unless the value of `key` divides a whole."""
    if whole % part:
        raise ModelError(f"metadata key {keys.arch}.{key} is {part}, expected a divisor of {whole}")


def has_heads(keys: Keys, layer: int, heads: Heads) -> None:
    """Raises ModelError for a layer with attention of no heads."""
    if heads.n_head == 0:
        raise ModelError(f"metadata key {keys.arch}.attention.head_count is 0 for layer {layer}, which has attention")


def attention(keys: Keys, layer: int, heads: Heads, rope: RopeSpec | None = None, **features: Any) -> AttentionSpec:
    """The attention of one layer among recurrent ones: projections fused or not, as the file has them."""
    has_heads(keys, layer, heads)
    if features.get("gate") == "query" and heads.v_dim != heads.head_dim:
        key = f"{keys.arch}.attention.value_length"
        raise ModelError(f"metadata key {key} is {heads.v_dim}, expected {heads.head_dim} as for keys")
    has = {name for name in ("qkv.weight", "qkv.bias", "q.bias") if f"blk.{layer}.attn_{name}" in keys.tensors}
    fused = "qkv.weight" in has
    scale = keys.real("attention.scale", 0.0) if features.pop("scaled", False) else 0.0
    return AttentionSpec(
        heads.n_head,
        heads.n_head_kv,
        heads.head_dim,
        scale or default_scale(heads.v_dim),
        rope,
        heads.v_dim,
        causal=keys.causal,
        fused=fused,
        split_bias=fused and "qkv.bias" not in has and "q.bias" in has,
        **features,
    )


def recurrent_layers(keys: Keys, interval: int) -> list[bool]:
    """Which layers are recurrent, where the file says so or every `interval`-th is not."""
    key = "attention.recurrent_layers"
    if keys.has(key):
        return [bool(v) for v in keys.per_layer(key, least=0)]
    interval = keys.integer("full_attention_interval", interval)
    return [(i + 1) % interval != 0 for i in range(keys.n_layer)]
