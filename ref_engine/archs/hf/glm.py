"""GLM 4 in its three forms.

Sources: llama.cpp's conversion/glm.py and chatglm.py, transformers' modeling_glm.py, modeling_glm4.py,
modeling_glm4_moe.py.
"""

from __future__ import annotations

from ref_engine.archs.hf.common import SIGMOID, common_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.qwen import merged_experts
from ref_engine.archs.hf.recipe import Recipe
from ref_engine.checkpoint import Config


def _rotated(config: Config, width: int) -> int:
    return int(width * config.inner("rope_parameters").number("partial_rotary_factor", default=0.5))


def _keys(config: Config, keys: KeyWriter) -> None:
    keys.u32("context_length", config.get("seq_length", config.width))
    keys.u32("embedding_length", config.width)
    keys.u32("feed_forward_length", config.integer("ffn_hidden_size", "intermediate_size", default=4 * config.width))
    keys.u32("block_count", config.n_layers)
    keys.u32("attention.head_count", config.n_heads)
    keys.u32("attention.head_count_kv", config.integer("multi_query_group_num", default=config.n_kv_heads))
    keys.f32("attention.layer_norm_rms_epsilon", config.get("layernorm_epsilon", 1e-5))
    keys.finish()
    width = config.integer("attention_dim", default=config.width // config.n_heads)
    keys.u32("rope.dimension_count", _rotated(config, width))
    keys.boolean("tokenizer.ggml.add_bos_token", False, full=True)
    keys.f32("rope.freq_base", 10000 * config.number("rope_ratio", default=1.0))


def _rename(config: Config, name: str) -> str | None:
    return None if name.endswith(".rotary_pos_emb.inv_freq") else name.removeprefix("transformer.")


def _keys4(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.u32("rope.dimension_count", _rotated(config, config.head_width))


def _moe_layers(config: Config) -> int:
    return config.n_layers + config.integer("num_nextn_predict_layers", default=0)


def _moe_keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys, _moe_layers(config))
    keys.u32("rope.dimension_count", _rotated(config, config.head_width))
    keys.take("expert_count", config.get("n_routed_experts"))
    keys.take("expert_feed_forward_length", config.get("moe_intermediate_size"))
    keys.take("expert_shared_count", config.get("n_shared_experts"))
    keys.take("leading_dense_block_count", config.get("first_k_dense_replace"))
    keys.u32("expert_gating_func", SIGMOID)
    if config.get("routed_scaling_factor") is not None:
        keys.f32("expert_weights_scale", config["routed_scaling_factor"])
    if config.get("norm_topk_prob") is not None:
        keys.boolean("expert_weights_norm", config["norm_topk_prob"])
    keys.take("nextn_predict_layers", config.get("num_nextn_predict_layers"))


RECIPES = {
    "GlmForCausalLM": Recipe("chatglm", keys=_keys, rename=_rename, vocabulary="chatglm"),
    "Glm4ForCausalLM": Recipe("glm4", keys=_keys4, vocabulary="glm4"),
    "Glm4MoeForCausalLM": Recipe(
        "glm4moe", layers=_moe_layers, keys=_moe_keys, rewrite=merged_experts, vocabulary="glm4moe"
    ),
}
