"""MPT: LayerNorm, ALiBi, projections that may be clamped, and many optional tensors (llama.cpp: src/models/mpt.cpp)."""

from __future__ import annotations

from typing import Any

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec, NormSpec


def spec(keys: Keys) -> ModelSpec:
    mixer: dict[str, Any] = {
        "fused": True,
        "output_bias": "may",
        "alibi": keys.real("attention.max_alibi_bias", 0.0),
        "clamp": keys.real("attention.clamp_kqv", 0.0),
    }
    ignored: tuple[str, ...] = ("blk.*.attn_k_norm.*",)  # norms count only where the queries have one
    if "blk.0.attn_q_norm.weight" in keys.tensors:
        k_norm = keys.layer_norm("attn_k_norm", bias="may", weight="may")
        mixer |= {"q_norm": _norm(keys, "attn_q_norm"), "k_norm": k_norm, "norm_over": "all"}
        ignored = ()
    return keys.model(
        layers(
            keys,
            None,
            lambda name: _norm(keys, name),
            mixer=mixer,
            ffn={"activation": "gelu", "gated": False, "bias": "may", "divisors": "may"},
        ),
        output_norm=_norm(keys, "output_norm"),
        position_embedding="position_embd.weight" in keys.tensors,
        ignored=ignored,
    )


def _norm(keys: Keys, name: str) -> NormSpec:
    return keys.layer_norm(name, bias="may")
