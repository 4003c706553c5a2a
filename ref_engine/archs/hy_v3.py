"""Hunyuan 3: norms on the heads, and experts beside a shared one in layers that have a router (llama.cpp: hy-v3.cpp).

A layer with a router may hold a dense network too, which is not used; one without a shared expert adds the activation
of what that would read.
"""

from __future__ import annotations

from ref_engine.archs.experts import dense_ffn, expert_layers, expert_width, moe, read_routing, shared_ffn
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import ActivationSpec, AttentionSpec, FfnSpec, ModelSpec, MoeSpec
from ref_engine.spec.parts import Part

_SELECTION_BIAS = "exp_probs_b"
_DENSE = ("ffn_gate.*", "ffn_up.*", "ffn_down.*")


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope, **norms)

    def ffn(i: int) -> Part:
        if f"blk.{i}.ffn_gate_inp.weight" not in keys.tensors:
            return dense_ffn(keys, i, scales="may")
        width = expert_width(keys, i)
        beside: FfnSpec | ActivationSpec = ActivationSpec("silu")
        if f"blk.{i}.ffn_up_shexp.weight" in keys.tensors:
            beside = shared_ffn(keys.integer("expert_shared_feed_forward_length", 0, least=0) or width, scales="may")
        routing = read_routing(keys, "file", default_gate="sigmoid", normalise="file", bias=_SELECTION_BIAS)
        return moe(
            keys, i, width=width, routing=routing, merged=True, scales="may",
            shared=beside, shared_name="ffn_shared_out",
        )  # fmt: skip

    layers = expert_layers(keys, mixer, ffn)
    routed = [i for i, layer in enumerate(layers) if isinstance(layer.ffn, MoeSpec)]
    return keys.model(layers, ignored=tuple(f"blk.{i}.{name}" for i in routed for name in _DENSE))
