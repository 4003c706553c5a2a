"""Phi 2, 3, 4 and the Phi mixture.

Sources: llama.cpp's conversion/phi.py, transformers' modeling_phi.py, modeling_phi3.py, modeling_phimoe.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.recipe import Named, Recipe
from ref_engine.archs.hf.rotary import long_factors
from ref_engine.checkpoint import Config
from ref_engine.errors import ConvertError


def _rotated(config: Config) -> int:
    share = config.inner("rope_parameters").number("partial_rotary_factor", default=1.0)
    return int(share * config.width) // config.n_heads


def _keys2(config: Config, keys: KeyWriter) -> None:
    keys.u32("context_length", config.first("n_positions", "max_position_embeddings"))
    keys.u32("embedding_length", config.width)
    keys.u32("feed_forward_length", 4 * config.width)
    keys.u32("block_count", config.n_layers)
    keys.u32("attention.head_count", config.n_heads)
    keys.u32("attention.head_count_kv", config.n_heads)
    keys.f32("attention.layer_norm_epsilon", config.first("layer_norm_epsilon", "layer_norm_eps"))
    keys.u32("rope.dimension_count", _rotated(config))
    keys.finish()
    keys.boolean("tokenizer.ggml.add_bos_token", False, full=True)


def _keys3(config: Config, keys: KeyWriter) -> None:
    rope = config.inner("rope_parameters")
    keys.u32("context_length", config.first("n_positions", "max_position_embeddings"))
    keys.u32("rope.scaling.original_context_length", _original(config))
    keys.u32("embedding_length", config.width)
    keys.u32("feed_forward_length", config["intermediate_size"])
    keys.u32("block_count", config.n_layers)
    keys.u32("attention.head_count", config.n_heads)
    keys.u32("attention.head_count_kv", config.n_kv_heads)
    keys.f32("attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    keys.u32("rope.dimension_count", _rotated(config))
    keys.f32("rope.freq_base", config.rope["rope_theta"])
    keys.finish()
    window = config.get("sliding_window")
    keys.u32("attention.sliding_window", 0 if window is None else window)  # 0: Phi 4, which has none
    if rope.get("long_factor"):
        keys.f32("rope.scaling.attn_factor", _magnitude(config))


def _original(config: Config) -> int:
    rope = config.inner("rope_parameters")
    return rope.integer("original_max_position_embeddings", at_least=2)


def _magnitude(config: Config) -> float:
    """What LongRoPE multiplies cosines and sines by."""
    rope, original = config.inner("rope_parameters"), _original(config)
    stretch = config.integer("n_positions", "max_position_embeddings", at_least=1) / original
    kind = str(rope.get("rope_type", "")).lower()
    if stretch <= 1:
        return 1.0
    if kind in ("su", "longrope"):
        return math.sqrt(1 + math.log(stretch) / math.log(original))
    if kind == "yarn":
        return 0.1 * math.log(stretch) + 1.0
    raise ConvertError(f"{rope.where}: scaling of type {kind!r} is not known in this family")


def _extra(config: Config) -> Iterable[Named]:
    return long_factors(config, _rotated(config)) if config.inner("rope_parameters").get("long_factor") else ()


def _moe_keys(config: Config, keys: KeyWriter) -> None:
    _keys3(config, keys)
    keys.u32("expert_used_count", config.first("num_experts_per_tok", "num_experts_per_token"))
    keys.u32("expert_count", config.first("num_local_experts", "num_experts"))


_MOE = Recipe("phimoe", keys=_moe_keys, extra=_extra, experts=("w1", "w2", "w3"), vocabulary="phi3")

RECIPES = {
    "PhiForCausalLM": Recipe("phi2", keys=_keys2),
    "Phi3ForCausalLM": Recipe("phi3", keys=_keys3, extra=_extra, vocabulary="phi3"),
    "PhiMoEForCausalLM": _MOE,
    "PhimoeForCausalLM": _MOE,  # as transformers calls it
}
