"""DeepSeek 4: attention to a window and to compressed keys, with or without an indexer over them, and experts that in
the first layers go by the token id, over several residual streams that mix.

llama.cpp: deepseek4.cpp. Text only: the routing bias for images is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ref_engine.archs.experts import SELECTION_BIAS, moe, read_routing, shared_ffn
from ref_engine.archs.hyper import clamped, read_hyper
from ref_engine.archs.keys import Keys
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import (
    CompressedAttentionSpec,
    CompressorSpec,
    GroupIndexSpec,
    LayerSpec,
    ModelSpec,
    MoeSpec,
    RopeSpec,
    StreamsSpec,
)

_SHORT, _LONG = 4, 128  # ratios of compression, with and without overlap
_RATIOS = "attention.compress_ratios"
_NAMES: Mapping[str, str | None] = {"l_out": "l_last"}


def spec(keys: Keys) -> ModelSpec:
    keys = _without_missing_layers(keys)
    hyper = read_hyper(keys, mixes=True)
    layers = [
        LayerSpec(
            _attention(keys, ratio),
            _experts(keys, i),
            mixer_norm=keys.rms("attn_norm"),
            ffn_norm=keys.rms("ffn_norm"),
            names=_NAMES,
            hyper=hyper,
        )
        for i, ratio in enumerate(keys.per_layer(_RATIOS, least=0))
    ]
    ignored = ("blk.*.exp_probs_b_vl.bias",)
    return keys.model(layers, tied=False, streams=StreamsSpec(hyper.n, hyper), ignored=ignored)


def _without_missing_layers(keys: Keys) -> Keys:
    """Files may count layers that predict further ahead without having any."""
    if f"blk.{keys.n_layer}.nextn.eh_proj.weight" in keys.tensors:
        return keys
    return replace(keys, metadata={**keys.metadata, f"{keys.arch}.nextn_predict_layers": 0})


def _attention(keys: Keys, ratio: int) -> CompressedAttentionSpec:
    heads = keys.heads(swa=True)[0]
    groups = keys.integer("attention.output_group_count")
    if heads.head_dim != heads.v_dim:
        raise _error(keys, "attention.value_length", heads.v_dim, f"the width {heads.head_dim} of a key")
    if heads.n_head_kv != 1:
        raise _error(keys, "attention.head_count_kv", heads.n_head_kv, "1")
    if heads.n_head % groups:
        raise _error(keys, "attention.output_group_count", groups, f"a divisor of {heads.n_head} heads")
    if ratio not in (0, _SHORT, _LONG):
        raise _error(keys, _RATIOS, ratio, f"0, {_SHORT} or {_LONG} for each layer")
    return CompressedAttentionSpec(
        n_head=heads.n_head,
        head_dim=heads.head_dim,
        q_rank=keys.integer("attention.q_lora_rank"),
        groups=groups,
        group_rank=keys.integer("attention.output_lora_rank"),
        window=keys.integer("attention.sliding_window"),
        scale=default_scale(heads.head_dim),
        rope=_rope(keys, heads.head_dim, ratio > 0),
        q_norm=keys.rms("attn_q_a_norm"),
        head_norm=keys.rms("attn_q_norm", weight="no"),
        kv_norm=keys.rms("attn_kv_a_norm"),
        compressor=_compressor(keys, "attn_compressor", heads.head_dim, ratio) if ratio else None,
        index=_index(keys) if ratio == _SHORT else None,
    )


def _rope(keys: Keys, head_dim: int, compressed: bool) -> RopeSpec:
    """Layers with compressed keys have a base of their own, and alone are stretched; no magnitude grows with that."""
    n_rot = keys.integer("rope.dimension_count_swa", keys.integer("rope.dimension_count", head_dim))
    rope = keys.rope(head_dim, "adjacent", n_rot=n_rot, factors="none", magnitude=1.0)
    if not compressed:
        return replace(rope, freq_scale=1.0, ext_factor=0.0)
    key = "attention.compress_rope_freq_base"
    return replace(rope, base=keys.positive(key, keys.real(key)))


def _compressor(keys: Keys, name: str, width: int, ratio: int) -> CompressorSpec:
    return CompressorSpec(name, width, ratio, overlap=ratio == _SHORT, norm=keys.rms(f"{name}_norm"))


def _index(keys: Keys) -> GroupIndexSpec:
    key = "attention.indexer.key_length"
    width = keys.integer(key)
    n_rot = _rope(keys, keys.heads(swa=True)[0].head_dim, compressed=True).n_rot
    if width < n_rot:
        raise _error(keys, key, width, f"at least {n_rot}")
    return GroupIndexSpec(
        n_head=keys.integer("attention.indexer.head_count"),
        head_dim=width,
        top_k=keys.integer("attention.indexer.top_k"),
        keys=_compressor(keys, "indexer_compressor", width, _SHORT),
        spread=width & (width - 1) == 0,
    )


def _experts(keys: Keys, i: int) -> MoeSpec:
    limits = keys.reals_per_layer("swiglu_clamp_exp")
    shared_limits = keys.reals_per_layer("swiglu_clamp_shexp") if keys.has("swiglu_clamp_shexp") else limits
    by_id = i < keys.integer("hash_layer_count", least=0)
    routing = read_routing(
        keys, "file", normalise="file",
        bias=None if by_id else SELECTION_BIAS, bias_presence="must",
        table="ffn_gate_tid2eid.weight" if by_id else None, n_vocab=keys.n_vocab,
    )  # fmt: skip
    if routing.gate != "sqrt_softplus":
        raise _error(keys, "expert_gating_func", keys.integer("expert_gating_func"), "4")
    width = keys.per_layer("expert_feed_forward_length")[0]
    activation, constants = clamped(limits, i)
    shared_activation, shared_constants = clamped(shared_limits, i)
    return moe(
        keys, i, width=width, activation=activation, constants=constants, routing=routing,
        shared=shared_ffn(width * keys.integer("expert_shared_count"), shared_activation, constants=shared_constants),
    )  # fmt: skip


def _error(keys: Keys, key: str, value: object, wanted: str) -> ModelError:
    return ModelError(f"metadata key {keys.arch}.{key} is {value!r}, expected {wanted}")
