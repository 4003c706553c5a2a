"""The layer that most families have: attention, then a dense feed-forward network, each after a norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from typing import Any

from ref_engine.archs.keys import Keys
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import AttentionSpec, FfnSpec, LayerSpec, NormSpec, RopeSpec
from ref_engine.spec.parts import Part

Features = Mapping[str, Any]


def attention(keys: Keys, i: int, rope: RopeSpec | None, **features: Any) -> AttentionSpec:
    """The attention of the tensors `blk.i.*`, whose maps may be fused; `features` in place of what is usual."""
    head = keys.heads(recurrent=True)[i]
    if head.n_head_kv == 0:
        raise ModelError(f"metadata key {keys.arch}.attention.head_count_kv is 0 for layer {i}, expected at least 1")
    fused = features.pop("fused", f"blk.{i}.attn_qkv.weight" in keys.tensors)
    whole_bias = f"blk.{i}.attn_qkv.bias" in keys.tensors
    usual: dict[str, Any] = {
        "scale": default_scale(head.head_dim),
        "v_dim": head.v_dim,
        "causal": keys.causal,
        "window_behind": not keys.causal,
        "split_bias": fused and not whole_bias and f"blk.{i}.attn_q.bias" in keys.tensors,
    }
    return AttentionSpec(head.n_head, head.n_head_kv, head.head_dim, rope=rope, fused=fused, **(usual | features))


def layers(
    keys: Keys,
    rope: RopeSpec | Iterable[RopeSpec | None] | None,
    norm: Callable[[str], NormSpec] | None = None,
    *,
    windows: Iterable[int | None] = repeat(None),
    widths: Iterable[int] | None = None,
    mixer: Features | None = None,
    ffn: Features | Callable[[int], Part] | None = None,
    **features: Any,
) -> list[LayerSpec]:
    """One layer for each of the file's.

    rope: the rotary embedding of all layers, or of each. norm: what makes a norm of a name, by default `keys.rms`.
    widths: of the feed-forward networks, by default those of the file. mixer, ffn, features: of AttentionSpec,
    FfnSpec (by default gated SiLU) and LayerSpec.
    """
    norm = norm or keys.rms
    ropes = repeat(rope) if rope is None or isinstance(rope, RopeSpec) else rope
    features = {"mixer_norm": norm("attn_norm"), "ffn_norm": norm("ffn_norm")} | features
    return [
        LayerSpec(
            attention(keys, i, rope_i, **({"window": window} | dict(mixer or {}))),
            ffn(i) if callable(ffn) else FfnSpec(width, **({"activation": "silu"} | dict(ffn or {}))),
            **features,
        )
        for i, (width, rope_i, window) in enumerate(
            zip(widths or keys.per_layer("feed_forward_length"), ropes, windows, strict=False)
        )
    ]
