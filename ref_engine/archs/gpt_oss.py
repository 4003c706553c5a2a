"""gpt-oss: a score that takes weight and gives nothing beside each head's, windows in every second layer, experts with
biases and a clamped SwiGLU, weighed by the softmax of the chosen logits (llama.cpp: openai-moe.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import expert_layers, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec

_WINDOW_PERIOD = 2
_ALPHA_AND_LIMIT = (1.702, 7.0)


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    windowed = keys.windowed_rope(rope, base=rope.base, scaled=True)
    windows = keys.windows(_WINDOW_PERIOD, required=True)
    routing = read_routing(keys, "softmax_weight", normalise=False, scale=False, router_bias="must")

    def mixer(i: int) -> AttentionSpec:
        turned = rope if windows[i] is None else windowed
        return attention(keys, i, turned, window=windows[i], sinks="must", output_bias="must")

    def ffn(i: int) -> MoeSpec:
        return moe(keys, i, activation="swiglu_oai", constants=_ALPHA_AND_LIMIT, routing=routing, bias="must")

    norm = keys.rms("post_attention_norm")
    return keys.model(expert_layers(keys, mixer, ffn, ffn_norm=norm, ffn_norm_name="attn_post_norm"))
