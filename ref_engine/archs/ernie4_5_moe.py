"""ERNIE 4.5 with experts: dense layers first, then experts in every so many layers (llama.cpp: ernie4-5-moe.cpp).

A layer behind the dense ones that is not one of so many has the tensors of experts, and llama.cpp uses none of them:
what is left of its feed-forward network is the activation.
"""

from __future__ import annotations

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
from ref_engine.spec import ActivationSpec, AttentionSpec, ModelSpec
from ref_engine.spec.parts import Part

_UNUSED = ("attn_output.bias",)
_UNUSED_EXPERTS = ("ffn_*_exps.weight", "ffn_*_shexp.weight", "ffn_gate_inp.weight", SELECTION_BIAS)


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    n_dense, step = leading_dense(keys), keys.integer("interleave_moe_layer_step")
    routing = read_routing(keys, normalise=True, scale=False, bias=SELECTION_BIAS)
    shared = keys.integer("expert_shared_feed_forward_length", 0, least=0)

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope)

    def ffn(i: int) -> Part:
        if i < n_dense:
            return dense_ffn(keys, i)
        if (i + 1) % step:
            return ActivationSpec("silu")
        gated = f"blk.{i}.ffn_gate_exps.weight" in keys.tensors
        return moe(keys, i, routing=routing, gated=gated, shared=shared_ffn(shared) if shared else None)

    layers = expert_layers(keys, mixer, ffn)
    bare = [i for i, layer in enumerate(layers) if isinstance(layer.ffn, ActivationSpec)]
    unused = [f"blk.{i}.{name}" for i in bare for name in _UNUSED_EXPERTS]
    return keys.model(layers, ignored=(*(f"blk.*.{name}" for name in _UNUSED), *unused))
