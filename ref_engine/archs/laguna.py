"""Laguna: heads gated by the softplus of a map of the layer's input, windows in three of four layers with positions of
their own, dense layers first (llama.cpp: laguna.cpp)."""

from __future__ import annotations

from typing import Literal

from ref_engine.archs.experts import (
    SELECTION_BIAS,
    dense_ffn,
    expert_layers,
    leading_dense,
    moe,
    read_routing,
    shared_ffn,
)  # fmt: skip
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, RopeSpec
from ref_engine.spec.parts import Part

_WINDOW_PERIOD = 4


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    n_rot = keys.integer("rope.dimension_count_swa", rope.n_rot)
    windowed = RopeSpec(n_rot, keys.positive("rope.freq_base_swa", rope.base), "halves")
    windows = keys.windows(_WINDOW_PERIOD, dense_first=True)
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}
    routing = read_routing(
        keys, "file", default_gate="sigmoid", normalise="file", bias=SELECTION_BIAS, bias_presence="must"
    )
    n_dense = leading_dense(keys, required=True)

    def mixer(i: int) -> AttentionSpec:
        turned = rope if windows[i] is None else windowed
        return attention(keys, i, turned, window=windows[i], gate=_gate(keys, i), gate_by="softplus", **norms)

    def ffn(i: int) -> Part:
        if i < n_dense:
            return dense_ffn(keys, i)
        width = keys.per_layer("expert_feed_forward_length")[i]
        n_shared = keys.integer("expert_shared_count", 1)
        shared = keys.integer("expert_shared_feed_forward_length", 0, least=0) or width * n_shared
        return moe(keys, i, routing=routing, shared=shared_ffn(shared))

    return keys.model(expert_layers(keys, mixer, ffn))


def _gate(keys: Keys, i: int) -> Literal["head", "feature"]:
    """One number for each head, or for each feature: the shape of the map tells."""
    shape, n_head = keys.shape(f"blk.{i}.attn_gate.weight"), keys.heads()[i].n_head
    return "head" if shape is None or shape[0] == n_head else "feature"
