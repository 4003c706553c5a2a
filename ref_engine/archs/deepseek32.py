"""DeepSeek 3.2 and GLM 5: DeepSeek's layer, where an indexer chooses the tokens to attend to.

llama.cpp: deepseek32.cpp, glm-dsa.cpp. They differ in the pairing of the indexer's features; in GLM 5.2 some layers
attend to what the last layer with an indexer chose.
"""

from __future__ import annotations

from ref_engine.archs.experts import leading_dense
from ref_engine.archs.keys import Keys
from ref_engine.archs.latent import layer, log_mul, read_indexer, routed_ffn, stretched_scale, widths
from ref_engine.errors import ModelError
from ref_engine.spec import IndexerSpec, LatentAttentionSpec, ModelSpec, Pairing
from ref_engine.spec.moe import Gate

_EPS = 1e-6  # of the LayerNorm on the keys of DeepSeek's indexer, whatever the file says
_NEW_CONTEXT = 1048576  # from this length on a GLM file without the key is GLM 5.2
_PERIOD = 4  # whose layers 0, 1, 2, 6, 10, ... have an indexer


def deepseek32(keys: Keys) -> ModelSpec:
    return _spec(keys, [True] * keys.n_layer, "halves", _EPS, log_mul(keys), None)


def glm_dsa(keys: Keys) -> ModelSpec:
    return _spec(keys, _has_indexer(keys), "adjacent", 0.0, 0.0, "sigmoid")


def _spec(
    keys: Keys, has_indexer: list[bool], pairing: Pairing, eps: float, mul: float, gate: Gate | None
) -> ModelSpec:
    w, n_dense = widths(keys), leading_dense(keys)
    indexer = read_indexer(keys, pairing, w.rope, eps)
    return keys.model(
        (
            layer(
                keys,
                _attention(keys, indexer if has_indexer[i] else None, mul),
                routed_ffn(keys, i, n_dense, gate=gate),
            )
            for i in range(keys.n_layer)
        ),
        ignored=tuple(f"blk.{i}.indexer.*" for i, has in enumerate(has_indexer) if not has),
    )


def _attention(keys: Keys, indexer: IndexerSpec | None, mul: float) -> LatentAttentionSpec:
    w = widths(keys)
    if not w.absorbed:
        raise ModelError(f"metadata key {keys.arch}.attention.key_length_mla is missing")
    head_dim = w.nope + w.rope
    rope = keys.rope(head_dim, "adjacent", factors="none", yarn=keys.yarn(log_mul=mul))
    return LatentAttentionSpec(
        n_head=keys.per_layer("attention.head_count")[0],
        nope_dim=w.nope,
        rope_dim=w.rope,
        v_dim=w.v,
        kv_rank=keys.integer("attention.kv_lora_rank"),
        scale=stretched_scale(head_dim, rope, mul),
        rope=rope,
        kv_norm=keys.rms("attn_kv_a_norm"),
        q_rank=keys.integer("attention.q_lora_rank"),
        q_norm=keys.rms("attn_q_a_norm"),
        indexer=indexer,
        follows=indexer is None,
    )


def _has_indexer(keys: Keys) -> list[bool]:
    key = "attention.indexer.types"
    if keys.has(key):
        has = [kind > 0 for kind in keys.per_layer(key, least=0)]
    elif keys.n_ctx_train < _NEW_CONTEXT:
        has = [True] * keys.n_layer
    else:
        has = [i < 2 or (i - 2) % _PERIOD == 0 for i in range(keys.n_layer)]
    if not has[0]:
        raise ModelError(f"metadata key {keys.arch}.{key}: the first layer has no indexer before it to follow")
    return has
