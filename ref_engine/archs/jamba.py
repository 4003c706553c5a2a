"""Jamba: Mamba in most layers, attention without positions in the others (llama.cpp: src/models/jamba.cpp).

Layers without key/value heads are the recurrent ones. A layer with a router is a mixture of experts.
"""

from __future__ import annotations

from ref_engine.archs.experts import moe, read_routing
from ref_engine.archs.keys import Heads, Keys
from ref_engine.archs.recurrent import attention, mamba
from ref_engine.spec import FfnSpec, LayerSpec, ModelSpec
from ref_engine.spec.parts import Part


def spec(keys: Keys) -> ModelSpec:
    widths = keys.per_layer("feed_forward_length")
    return keys.model(
        LayerSpec(
            _mixer(keys, i, heads),
            _ffn(keys, i, width),
            mixer_norm=keys.rms("attn_norm"),
            ffn_norm=keys.rms("ffn_norm"),
        )
        for i, (heads, width) in enumerate(zip(keys.heads(recurrent=True), widths, strict=True))
    )


def _mixer(keys: Keys, layer: int, heads: Heads) -> Part:
    if heads.n_head_kv:
        return attention(keys, layer, heads)
    norms = {f"{part}_norm": keys.rms(f"ssm_{part}_norm") for part in ("dt", "b", "c")}
    return mamba(keys, **norms)


def _ffn(keys: Keys, layer: int, width: int) -> Part:
    if f"blk.{layer}.ffn_gate_inp.weight" not in keys.tensors:
        return FfnSpec(width, "silu")
    return moe(keys, layer, width=width, routing=read_routing(keys, normalise=False, scale=False))
