"""DeepSeek 2, 2.5, 3 and R1, Kimi K2, GLM 4.7 Lite (llama.cpp: deepseek2.cpp), and Mistral 4, which shares its layer.

Latent attention, leading dense layers, then experts beside shared ones. Lite files have queries in one step; old ones
hold keys and values of all heads in one matrix.
"""

from __future__ import annotations

from functools import partial

from ref_engine.archs.experts import leading_dense
from ref_engine.archs.keys import Keys
from ref_engine.archs.latent import layer, log_mul, routed_ffn, stretched_scale, widths
from ref_engine.errors import ModelError
from ref_engine.spec import LatentAttentionSpec, ModelSpec
from ref_engine.spec.attention import Temperature
from ref_engine.spec.moe import Gate

_SIGMOID_LAYERS, _SIGMOID_VOCAB = (47, 48), 154880  # GLM 4.7 Lite, whose files do not name their gate


def _spec(keys: Keys, keeps_magnitude: bool) -> ModelSpec:
    """keeps_magnitude: mscale is mscale_all_dim, so that cosines and sines keep their size; else it is 1."""
    w, mul = widths(keys), log_mul(keys)
    head_dim = w.nope + w.rope
    rope = keys.rope(
        head_dim, "adjacent", factors="none", yarn=keys.yarn(log_mul=mul, mscale=mul if keeps_magnitude else 1.0)
    )
    lite = "blk.0.attn_q_a.weight" not in keys.tensors
    attention = LatentAttentionSpec(
        n_head=keys.per_layer("attention.head_count")[0],
        nope_dim=w.nope,
        rope_dim=w.rope,
        v_dim=w.v,
        kv_rank=keys.integer("attention.kv_lora_rank"),
        scale=stretched_scale(head_dim, rope, mul),
        rope=rope,
        kv_norm=keys.rms("attn_kv_a_norm"),
        q_rank=None if lite else keys.integer("attention.q_lora_rank"),
        q_norm=keys.rms("attn_q_a_norm"),
        absorbed=w.absorbed,
        temperature=_temperature(keys),
    )
    n_dense = leading_dense(keys)
    gate = _default_gate(keys)
    return keys.model(
        layer(keys, attention, routed_ffn(keys, i, n_dense, gate=gate, merged=True)) for i in range(keys.n_layer)
    )


def _temperature(keys: Keys) -> Temperature | None:
    """Of Mistral Large 3 and Mistral 4."""
    scale = keys.real("attention.temperature_scale", 0.0)
    step = keys.integer("attention.temperature_length", 0, least=0)
    if scale and not step:
        raise ModelError(f"metadata key {keys.arch}.attention.temperature_length is 0, expected at least 1")
    return Temperature(scale, step) if scale else None


def _default_gate(keys: Keys) -> Gate:
    is_sigmoid = keys.n_layer in _SIGMOID_LAYERS and keys.n_vocab == _SIGMOID_VOCAB
    return "sigmoid" if is_sigmoid else "softmax"


deepseek2 = partial(_spec, keeps_magnitude=True)
mistral4 = partial(_spec, keeps_magnitude=False)
