"""GroveMoE: experts chosen by the sigmoid of the router's logits and weighed by their softmax, and small experts that
neighbours share (llama.cpp: grovemoe.cpp, where those read what the experts gave)."""

from __future__ import annotations

from ref_engine.archs.experts import expert_layers, expert_width, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.errors import ModelError
from ref_engine.spec import AttentionSpec, ChunkSpec, ModelSpec, MoeSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}
    routing = read_routing(keys, normalise=True, scale=False, select_by="sigmoid")
    chunk = ChunkSpec(
        keys.integer("experts_per_group"),
        keys.integer("expert_chunk_feed_forward_length", 0, least=0) or keys.head_dim,
        keys.real("expert_group_scale"),
    )
    n_expert = keys.integer("expert_count")
    if n_expert % chunk.of:
        raise ModelError(f"metadata key {keys.arch}.experts_per_group is {chunk.of}, expected a divisor of {n_expert}")

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope, **norms)

    def ffn(i: int) -> MoeSpec:
        return moe(keys, i, width=expert_width(keys, i), routing=routing, chunk=chunk)

    return keys.model(expert_layers(keys, mixer, ffn))
