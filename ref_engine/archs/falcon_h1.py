"""Falcon-H1: attention and a Mamba 2 side by side in every layer (llama.cpp: src/models/falcon-h1.cpp).

The multipliers of the original are part of the weights. llama.cpp knows, and leaves out, the output projection's bias
and the factors for the rotary frequencies.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.recurrent import attention, mamba2
from ref_engine.spec import FfnSpec, LayerSpec, Mamba2Spec, ModelSpec, SumSpec


def spec(keys: Keys) -> ModelSpec:
    heads = keys.heads()[0]
    rope = keys.rope(heads.head_dim, "halves", factors="none")
    ffn = FfnSpec(keys.per_layer("feed_forward_length")[0], "silu", bias="may")
    layers = (
        LayerSpec(
            SumSpec((attention(keys, i, heads, rope), _mamba2(keys, i)), ("attn_out", "ssm_out")),
            ffn,
            mixer_norm=keys.rms("attn_norm"),
            ffn_norm=keys.rms("ffn_norm", suffix=""),
        )
        for i in range(keys.n_layer)
    )
    return keys.model(layers, ignored=("blk.*.attn_output.bias", "rope_freqs.weight"))


def _mamba2(keys: Keys, layer: int) -> Mamba2Spec:
    normed = f"blk.{layer}.ssm_norm.weight" in keys.tensors
    return mamba2(keys) if normed else mamba2(keys, norm=None)
