"""MiMo 2: heads and positions of their own in layers with windows, sinks, experts in the layers that have a router
(llama.cpp: mimo2.cpp). Biases of projections are not used, nor is a dense network in a layer with a router."""

from __future__ import annotations

from ref_engine.archs.experts import SELECTION_BIAS, dense_ffn, expert_layers, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec
from ref_engine.spec.parts import Part

_DENSE = ("ffn_gate.*", "ffn_up.*", "ffn_down.*")
_BIASES = tuple(f"blk.*.attn_{name}.bias" for name in ("q", "k", "v", "qkv"))


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    windowed = keys.windowed_rope(rope)
    windows = keys.windows(None, required=True)
    value_scale = keys.real("attention.value_scale", 0.0)

    def mixer(i: int) -> AttentionSpec:
        return attention(
            keys, i, rope if windows[i] is None else windowed, window=windows[i], sinks="may",
            bias="no", split_bias=False,
            output_scale=None if value_scale in (0.0, 1.0) else value_scale,
        )  # fmt: skip

    def ffn(i: int) -> Part:
        if f"blk.{i}.ffn_gate_inp.weight" not in keys.tensors:
            return dense_ffn(keys, i)
        routing = read_routing(keys, "sigmoid", normalise=True, scale=False, bias=SELECTION_BIAS)
        return moe(keys, i, routing=routing)

    layers = expert_layers(keys, mixer, ffn)
    routed = [i for i, layer in enumerate(layers) if isinstance(layer.ffn, MoeSpec)]
    return keys.model(layers, ignored=(*_BIASES, *(f"blk.{i}.{name}" for i in routed for name in _DENSE)))
