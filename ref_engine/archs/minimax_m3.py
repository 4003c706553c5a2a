"""MiniMax M3: norms on queries and keys, partial rotation, and blocks of tokens that each group of heads chooses.

llama.cpp: minimax-m3.cpp. The leading dense layers attend to all tokens. (llama.cpp chooses blocks only with flash
attention; without it every layer attends to all, and it warns that this is not the model.)
"""

from __future__ import annotations

from ref_engine.archs.experts import leading_dense
from ref_engine.archs.keys import Keys
from ref_engine.archs.latent import layer, routed_ffn
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import AttentionSpec, BlockIndexSpec, ModelSpec

_ACTIVATION = ("swiglu_oai", (1.702, 7.0))


def spec(keys: Keys) -> ModelSpec:
    n_dense = leading_dense(keys)
    return keys.model(
        layer(
            keys,
            _attention(keys, i, i >= n_dense),
            routed_ffn(keys, i, n_dense, bias="must", activation=_ACTIVATION),
        )
        for i in range(keys.n_layer)
    )


def _attention(keys: Keys, i: int, sparse: bool) -> AttentionSpec:
    n_head, n_head_kv, head_dim, v_dim = keys.heads()[i]
    if v_dim != head_dim:
        raise ModelError(f"metadata key {keys.arch}.attention.value_length is {v_dim}, expected {head_dim}")
    rope = keys.rope(head_dim, "halves", factors="none")
    return AttentionSpec(
        n_head,
        n_head_kv,
        head_dim,
        default_scale(head_dim),
        rope,
        fused=f"blk.{i}.attn_qkv.weight" in keys.tensors,
        q_norm=keys.rms("attn_q_norm"),
        k_norm=keys.rms("attn_k_norm"),
        index=_index(keys, n_head, rope.n_rot) if sparse else None,
    )


def _index(keys: Keys, n_head: int, n_rot: int) -> BlockIndexSpec:
    groups = keys.integer("attention.indexer.head_count")
    if n_head % groups:
        raise ModelError(
            f"metadata key {keys.arch}.attention.indexer.head_count is {groups}, expected a divisor of {n_head} heads"
        )
    width = keys.integer("attention.indexer.key_length", least=n_rot)
    return BlockIndexSpec(
        n_head=groups,
        head_dim=width,
        block=keys.integer("attention.indexer.block_size"),
        top_k=keys.integer("attention.indexer.top_k"),
        local=keys.integer("attention.indexer.local_blocks", least=0),
        q_norm=keys.rms("indexer.q_norm"),
        k_norm=keys.rms("indexer.k_norm"),
    )
