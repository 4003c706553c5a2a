"""GLM 5 Next: Kimi delta attention, and latent attention without positions to pools of tokens that an indexer chooses,
over several residual streams.

llama.cpp: glm5-next.cpp. Layers without key/value heads are the recurrent ones.
"""

from __future__ import annotations

from ref_engine.archs.experts import SELECTION_BIAS, leading_dense, moe, read_routing, shared_ffn
from ref_engine.archs.keys import Keys
from ref_engine.archs.kimi_k3 import decay_bound
from ref_engine.archs.kimi_linear import n_head
from ref_engine.archs.latent import widths
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import (
    FfnSpec,
    HyperSpec,
    KdaSpec,
    LatentAttentionSpec,
    LayerSpec,
    ModelSpec,
    NormSpec,
    PoolIndexSpec,
    StreamsSpec,
)
from ref_engine.spec.parts import Part

_STREAMS = 4  # llama.cpp takes no other number
_L2_EPS = 1e-6
_NO_LIMIT = 1e-6  # limits up to this one are none
_LATENT_NAMES = {"qr": "q_resid", "q_nope_absorbed": "q_absorbed"}


def spec(keys: Keys) -> ModelSpec:
    is_latent = [n > 0 for n in keys.per_layer("attention.head_count_kv", least=0)]
    has_indexer = [kind > 0 for kind in keys.per_layer("attention.indexer.types", 1, least=0)]
    if any(is_latent) and not has_indexer[is_latent.index(True)]:
        raise ModelError(f"metadata key {keys.arch}.attention.indexer.types: no indexer before the first layer with 0")
    hyper = _hyper(keys)
    bare = [i for i, (latent, has) in enumerate(zip(is_latent, has_indexer, strict=True)) if latent and not has]
    return keys.model(
        (
            LayerSpec(
                _latent(keys, has_indexer[i]) if latent else _delta(keys),
                _ffn(keys, i),
                mixer_norm=keys.rms("attn_norm"),
                ffn_norm=keys.rms("ffn_norm"),
                names=_LATENT_NAMES if latent else {"attn_out": None},
                hyper=hyper,
            )
            for i, latent in enumerate(is_latent)
        ),
        tied=False,
        streams=StreamsSpec(hyper.n),
        ignored=tuple(f"blk.{i}.indexer{rest}*" for i in bare for rest in (".", "_compressor_")),
    )


def _hyper(keys: Keys) -> HyperSpec:
    n = keys.integer("hyper_connection.count")
    if n != _STREAMS:
        raise ModelError(f"metadata key {keys.arch}.hyper_connection.count is {n}, expected {_STREAMS}")
    return HyperSpec(
        n,
        norm_eps=keys.real("attention.layer_norm_rms_epsilon"),
        eps=keys.real("hyper_connection.epsilon"),
        rounds=keys.integer("hyper_connection.sinkhorn_iterations"),
    )


def _latent(keys: Keys, has_indexer: bool) -> LatentAttentionSpec:
    n_rot = keys.integer("rope.dimension_count", least=0)
    if n_rot:
        raise ModelError(f"metadata key {keys.arch}.rope.dimension_count is {n_rot}, expected 0")
    w = widths(keys, n_rot=0)
    if not w.absorbed:
        raise ModelError(f"metadata key {keys.arch}.attention.key_length_mla is missing")
    return LatentAttentionSpec(
        n_head=n_head(keys),
        nope_dim=w.nope,
        rope_dim=0,
        v_dim=w.v,
        kv_rank=keys.integer("attention.kv_lora_rank"),
        scale=default_scale(w.nope),
        rope=None,
        kv_norm=keys.rms("attn_kv_a_norm"),
        q_rank=keys.integer("attention.q_lora_rank"),
        q_norm=keys.rms("attn_q_a_norm"),
        indexer=_indexer(keys) if has_indexer else None,
        follows=not has_indexer,
    )


def _indexer(keys: Keys) -> PoolIndexSpec:
    key = "attention.indexer"
    pool, top_k = keys.integer(f"{key}.kpool", least=2), keys.integer(f"{key}.top_k")
    if top_k % pool:
        raise ModelError(f"metadata key {keys.arch}.{key}.top_k is {top_k}, expected a multiple of kpool {pool}")
    if not keys.boolean(f"{key}.kpool_select_tail", True):
        raise ModelError(f"metadata key {keys.arch}.{key}.kpool_select_tail is False: the first tokens would see none")
    return PoolIndexSpec(
        n_head=keys.integer(f"{key}.head_count"),
        head_dim=keys.integer(f"{key}.key_length"),
        pool=pool,
        top_k=top_k // pool,
        k_norm=NormSpec("indexer.k_norm", keys.real("attention.layer_norm_epsilon", 0.0), "layer", bias="must"),
    )


def _delta(keys: Keys) -> KdaSpec:
    return KdaSpec(
        n_head=n_head(keys),
        head_dim=keys.integer("kda.head_dim"),
        conv=keys.integer("ssm.conv_kernel"),
        norm=keys.rms("ssm_norm"),
        l2_eps=_L2_EPS,
        bound=decay_bound(keys),
        flat=True,
    )


def _ffn(keys: Keys, i: int) -> Part:
    limits = keys.reals_per_layer("swiglu_clamp_exp", 0.0)
    shared_limits = keys.reals_per_layer("swiglu_clamp_shexp") if keys.has("swiglu_clamp_shexp") else limits
    name, constants = _limited(limits[i])
    shared_name, shared_constants = _limited(shared_limits[i])
    if i < leading_dense(keys):
        return FfnSpec(keys.per_layer("feed_forward_length")[0], shared_name, constants=shared_constants)
    width = keys.per_layer("expert_feed_forward_length")[i]
    return moe(
        keys,
        i,
        width=width,
        activation=name,
        constants=constants,
        routing=read_routing(
            keys, "file", default_gate="sigmoid", normalise="file", bias=SELECTION_BIAS, bias_presence="must"
        ),
        shared=shared_ffn(width * keys.integer("expert_shared_count"), shared_name, constants=shared_constants),
    )


def _limited(limit: float) -> tuple[str, tuple[float, ...]]:
    return ("swiglu_clamp", (limit,)) if limit > _NO_LIMIT else ("silu", ())
