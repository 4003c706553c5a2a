"""dots3 note: latent attention of two sizes, with an indexer or with a window; a gate for each head.

llama.cpp: dots3note.cpp.
"""

from __future__ import annotations

from ref_engine.archs.experts import leading_dense
from ref_engine.archs.keys import Keys
from ref_engine.archs.latent import layer, read_indexer, routed_ffn, widths
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import LatentAttentionSpec, ModelSpec

_EPS = 1e-6  # of the LayerNorm on the indexer's keys, whatever the file says


def spec(keys: Keys) -> ModelSpec:
    n_dense = leading_dense(keys, required=True)
    windowed = [kind > 0 for kind in keys.per_layer("attention.sliding_window_pattern", least=0)]
    types = keys.per_layer("attention.indexer.types", least=0)
    for i, (windows, kind) in enumerate(zip(windowed, types, strict=True)):
        if not windows and not kind:
            raise ModelError(
                f"metadata key {keys.arch}.attention.indexer.types: layer {i} has neither a window nor an indexer"
            )
    n_head = keys.per_layer("attention.head_count")
    # all layers turn as many features as the first one
    n_rot = keys.integer("rope.dimension_count")
    n_rot = keys.integer("rope.dimension_count_swa", n_rot) if windowed[0] else n_rot
    return keys.model(
        (
            layer(
                keys,
                _attention(keys, n_head[i], n_rot, windowed[i]),
                routed_ffn(keys, i, n_dense, bias="must"),
            )
            for i in range(keys.n_layer)
        ),
        ignored=tuple(f"blk.{i}.indexer.*" for i, windows in enumerate(windowed) if windows),
    )


def _attention(keys: Keys, n_head: int, n_rot: int, windowed: bool) -> LatentAttentionSpec:
    suffix = "_swa" if windowed else ""
    w = widths(keys, suffix, n_rot)
    if not w.absorbed:
        raise ModelError(f"metadata key {keys.arch}.attention.key_length_mla{suffix} is missing")
    head_dim = w.nope + w.rope
    rope = keys.rope(head_dim, "adjacent", factors="none", n_rot=n_rot)
    return LatentAttentionSpec(
        n_head=n_head,
        nope_dim=w.nope,
        rope_dim=w.rope,
        v_dim=w.v,
        kv_rank=keys.integer(f"attention.kv_lora_rank{suffix}"),
        scale=default_scale(head_dim),
        rope=keys.windowed_rope(rope, scaled=True) if windowed else rope,
        kv_norm=keys.rms("attn_kv_a_norm"),
        q_rank=keys.integer("attention.q_lora_rank"),
        q_norm=keys.rms("attn_q_a_norm"),
        k_norm=keys.rms("attn_k_norm"),
        window=keys.integer("attention.sliding_window") if windowed else None,
        gated=True,
        indexer=None if windowed else read_indexer(keys, "halves", w.rope, _EPS),
    )
