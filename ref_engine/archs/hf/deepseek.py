"""DeepSeek 1 to 3.

Sources: llama.cpp's conversion/deepseek.py, transformers' modeling_deepseek_v2.py and modeling_deepseek_v3.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ref_engine.archs.hf.common import common_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.llama import turned
from ref_engine.archs.hf.qwen import merged_experts
from ref_engine.archs.hf.recipe import Named, Recipe, layer_of
from ref_engine.checkpoint import Config, Tensor
from ref_engine.errors import ConvertError


def _keys1(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.u32("rope.dimension_count", config.head_width)
    keys.string("rope.scaling.type", "none")
    keys.u32("leading_dense_block_count", config["first_k_dense_replace"])
    keys.u32("vocab_size", config["vocab_size"])
    keys.u32("expert_feed_forward_length", config["moe_intermediate_size"])
    keys.f32("expert_weights_scale", 1.0)
    keys.u32("expert_count", config["n_routed_experts"])
    keys.u32("expert_shared_count", config["n_shared_experts"])


def _keys2(config: Config, keys: KeyWriter) -> None:
    """Latent attention: one key and value head as wide as the latent vector and the rotated part."""
    common_keys(config.changed(num_key_value_heads=1, rms_norm_eps=config.get("rms_norm_eps", 1e-6)), keys)
    dense = config.get("first_k_dense_replace")
    if dense is None:
        dense = config.n_layers if config.get("n_routed_experts") is None else 0
    keys.u32("leading_dense_block_count", dense)
    latent, rotated = config.integer("kv_lora_rank", default=512), config.integer("qk_rope_head_dim")
    keys.u32("vocab_size", config["vocab_size"])
    keys.take("attention.q_lora_rank", config.get("q_lora_rank"))
    keys.u32("attention.kv_lora_rank", latent)
    keys.u32("attention.key_length", latent + rotated)
    keys.u32("attention.value_length", latent)
    keys.u32("attention.key_length_mla", config.integer("qk_nope_head_dim") + rotated)
    keys.u32("attention.value_length_mla", config["v_head_dim"])
    keys.u32("expert_feed_forward_length", config.first("moe_intermediate_size", "intermediate_size"))
    keys.take("expert_count", config.get("n_routed_experts"))
    keys.u32("expert_shared_count", config.get("n_shared_experts", 0))
    if config.get("routed_scaling_factor") is not None:
        keys.f32("expert_weights_scale", config["routed_scaling_factor"])
    if config.get("norm_topk_prob"):
        keys.boolean("expert_weights_norm", config["norm_topk_prob"])
    keys.u32("rope.dimension_count", rotated)
    if config.inner("rope_parameters").get("mscale_all_dim") is not None:
        keys.f32("rope.scaling.yarn_log_multiplier", 0.1 * config.inner("rope_parameters").number("mscale_all_dim"))


def _rename2(config: Config, name: str) -> str | None:
    if name in ("lm_head.weight", "model.lm_head.weight") and config.get("tie_word_embeddings"):
        return None
    layer = layer_of(name) if name.startswith("model.layers.") else None
    return None if layer is not None and layer >= config.n_layers else name  # layers that predict further tokens


def latent_heads(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    """kv_b_proj (H * (Hk + Hv), R) -> what is absorbed into queries (H, R, Hk) and into outputs (H, Hv, R)."""
    if not name.endswith("kv_b_proj.weight"):
        yield from merged_experts(config, name, tensor)
        return
    heads = config.n_kv_heads
    key, value = config.integer("qk_nope_head_dim"), config.integer("v_head_dim")
    tensor.expect_axes(2)
    if tensor.shape[0] != heads * (key + value):
        raise ConvertError(
            f"tensor {tensor.name} of {list(tensor.shape)} does not hold {heads} heads of {key} + {value}"
        )
    rank = tensor.shape[1]
    yield (
        re.sub("kv_b_proj", "k_b_proj", name),
        tensor.remade((heads, rank, key), lambda x: x.reshape(heads, -1, rank)[:, :key].swapaxes(1, 2)),
    )
    yield (
        re.sub("kv_b_proj", "v_b_proj", name),
        tensor.remade((heads, value, rank), lambda x: x.reshape(heads, -1, rank)[:, key:]),
    )


DEEPSEEK2 = Recipe("deepseek2", rename=_rename2, keys=_keys2, rewrite=latent_heads)

RECIPES = {
    "DeepseekForCausalLM": Recipe("deepseek", keys=_keys1, rewrite=turned, vocabulary="sentencepiece or byte-level"),
    "DeepseekV2ForCausalLM": DEEPSEEK2,
    "DeepseekV3ForCausalLM": DEEPSEEK2,
}
