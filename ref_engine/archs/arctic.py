"""Arctic: a dense feed-forward network after attention, and experts beside both that read what entered the layer
(llama.cpp: arctic.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import dense_ffn, expert_layers, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, FfnSpec, ModelSpec, MoeSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent", factors="none")
    routing = read_routing(keys, normalise=True, scale=False)
    dense = FfnSpec(keys.d_model, "silu")

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope)

    def ffn(i: int) -> MoeSpec:
        return moe(
            keys, i, width=dense_ffn(keys, i).width, routing=routing,
            shared=dense, shared_name="ffn_dense_out", reads="layer", norm=keys.rms("ffn_norm_exps"),
        )  # fmt: skip

    return keys.model(expert_layers(keys, mixer, ffn))
