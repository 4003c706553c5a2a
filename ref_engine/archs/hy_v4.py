"""Hunyuan 4: gated latent attention with sinks, and experts, over several residual streams.

llama.cpp: hy-v4.cpp. Some layers have an indexer, whose choice the layers behind them follow; in files without one
every layer attends to all tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

from ref_engine.archs.experts import leading_dense
from ref_engine.archs.hyper import clamped, read_hyper
from ref_engine.archs.keys import Keys
from ref_engine.archs.latent import routed_ffn, widths
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import IndexerSpec, LatentAttentionSpec, LayerSpec, ModelSpec, NormSpec, StreamsSpec

_NAMES: Mapping[str, str | None] = {
    "attn_gate": None,
    "attn_gate_sigmoid": None,
    "hc_attn_post": "hc_attn_out",
    "hc_attn_pre": None,
    "hc_ffn_pre": None,
    "hc_post": "hc_post_gate",
    "kqv_out": "attn_kqv",
}


def spec(keys: Keys) -> ModelSpec:
    hyper = read_hyper(keys, mixes=False, magnitude=keys.real("hyper_connection.magnitude"), post_eps=True)
    limits = keys.reals_per_layer("swiglu_clamp_exp", 0.0)
    n_dense, indexers = leading_dense(keys), _indexers(keys)
    layers = [
        LayerSpec(
            _attention(keys, indexer, follows=indexers[0] is not None and indexer is None),
            routed_ffn(
                keys, i, n_dense, activation=clamped(limits, i),
                dense_activation=("silu", ()), shared_activation=("silu", ()),
            ),
            mixer_norm=keys.rms("attn_norm"),
            ffn_norm=keys.rms("ffn_norm"),
            names=_NAMES,
            hyper=hyper,
        )
        for i, indexer in enumerate(indexers)
    ]  # fmt: skip
    return keys.model(layers, tied=False, streams=StreamsSpec(hyper.n, hyper))


def _attention(keys: Keys, indexer: IndexerSpec | None, follows: bool) -> LatentAttentionSpec:
    w = widths(keys)
    if not w.absorbed:
        raise ModelError(f"metadata key {keys.arch}.attention.key_length_mla is missing")
    head_dim = w.nope + w.rope
    return LatentAttentionSpec(
        n_head=keys.per_layer("attention.head_count")[0],
        nope_dim=w.nope,
        rope_dim=w.rope,
        v_dim=w.v,
        kv_rank=keys.integer("attention.kv_lora_rank"),
        scale=default_scale(head_dim),
        rope=keys.rope(head_dim, "adjacent", factors="none", n_rot=w.rope),
        kv_norm=keys.rms("attn_kv_a_norm"),
        q_rank=keys.integer("attention.q_lora_rank"),
        q_norm=keys.rms("attn_q_a_norm"),
        gated=True,
        gate_features=True,
        indexer=indexer,
        follows=follows,
        sinks="must",
    )


def _indexers(keys: Keys) -> list[IndexerSpec | None]:
    """The indexer of each layer that has one; none at all where the file chooses no tokens."""
    top_k = keys.integer("attention.indexer.top_k", 0, least=0)
    if top_k == 0:
        return [None] * keys.n_layer
    width, n_rot = keys.integer("attention.indexer.key_length"), widths(keys).rope
    if width <= n_rot:
        raise ModelError(
            f"metadata key {keys.arch}.attention.indexer.key_length is {width}, expected more than the {n_rot} "
            "features that are turned"
        )
    indexer = IndexerSpec(
        n_head=keys.integer("attention.indexer.head_count"),
        head_dim=width,
        top_k=top_k,
        pairing="adjacent",
        k_norm=NormSpec("indexer.k_norm", keys.real("attention.layer_norm_rms_epsilon"), "layer", bias="must"),
        turn_last=True,
        spread=False,
    )
    key = "attention.indexer.types"
    has = [kind > 0 for kind in keys.per_layer(key, least=0)]
    if not has[0]:
        raise ModelError(f"metadata key {keys.arch}.{key}: the first layer has no indexer before it to follow")
    return [indexer if own else None for own in has]
