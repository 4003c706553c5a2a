"""Refact: Llama's layer with ALiBi in place of rotary embedding (llama.cpp: src/models/refact.cpp).

Its files may hold biases and factors of frequencies that are not used there. Nor are experts, if a file has them in
place of a dense network: what is left of that is the activation.
"""

from __future__ import annotations

from ref_engine.archs.experts import dense_ffn, has_experts
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ActivationSpec, ModelSpec
from ref_engine.spec.parts import Part

_LARGEST_SLOPE = 8.0
_UNUSED = ("rope_f*.weight", "blk.*.attn_output.bias", "blk.*.ffn_*.bias")
_EXPERTS = ("blk.*.ffn_gate_inp.weight", "blk.*.ffn_*_exps.weight")


def spec(keys: Keys) -> ModelSpec:
    bare = has_experts(keys)

    def ffn(i: int) -> Part:
        return ActivationSpec("silu") if bare else dense_ffn(keys, i)

    ignored = (*_UNUSED, *_EXPERTS) if bare else _UNUSED
    return keys.model(layers(keys, None, mixer={"alibi": _LARGEST_SLOPE}, ffn=ffn), ignored=ignored)
