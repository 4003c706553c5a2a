"""Qwen 3 with experts, its vision form, and RND1, which sees both sides: norms on queries and keys, experts in every
layer, softmax over all of them (llama.cpp: qwen3moe.cpp, qwen3vlmoe.cpp, rnd1.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import expert_layers, expert_width, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec, RopeSpec
from ref_engine.spec.parts import Presence


def spec(keys: Keys) -> ModelSpec:
    return _spec(keys, _rope(keys), scales="may")


def vision_spec(keys: Keys) -> ModelSpec:
    sections = keys.sections(required=True)
    head_dim = keys.head_dim
    return _spec(keys, keys.rope(head_dim, "halves", factors="none", sections=sections, interleaved=True))


def diffusion_spec(keys: Keys) -> ModelSpec:
    return _spec(keys, _rope(keys), causal=False)


def _rope(keys: Keys) -> RopeSpec:
    return keys.rope(keys.head_dim, "halves", factors="none")


def _spec(keys: Keys, rope: RopeSpec, causal: bool | None = None, scales: Presence = "no") -> ModelSpec:
    causal = keys.causal if causal is None else causal
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}
    routing = read_routing(keys, normalise=True, scale=False)

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope, causal=causal, **norms)

    def ffn(i: int) -> MoeSpec:
        return moe(keys, i, width=expert_width(keys, i), routing=routing, scales=scales)

    return keys.model(expert_layers(keys, mixer, ffn), causal=causal)
