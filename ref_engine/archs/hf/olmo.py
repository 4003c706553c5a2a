"""OLMo 1 to 3 and OLMoE.

Sources: llama.cpp's conversion/olmo.py, transformers' modeling_olmo*.py.
"""

from __future__ import annotations

from ref_engine.archs.hf.common import common_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.llama import turned
from ref_engine.archs.hf.qwen import merged_experts
from ref_engine.archs.hf.recipe import Recipe
from ref_engine.checkpoint import Config


def _keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.f32("attention.layer_norm_epsilon", 1e-5)
    if config.get("clip_qkv") is not None:
        keys.f32("attention.clamp_kqv", config["clip_qkv"])


def _keys2(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    if "sliding_window" in config:
        keys.u32("attention.sliding_window", config["sliding_window"])
        if config.get("layer_types") is not None:
            kinds = config.list_of("layer_types", str, config.n_layers)
            pattern = [kind == "sliding_attention" for kind in kinds]
        else:
            pattern = [(layer + 1) % 4 != 0 for layer in range(config.n_layers)]
        keys.booleans("attention.sliding_window_pattern", pattern)


def _moe_keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.f32("attention.layer_norm_rms_epsilon", 1e-5)


_OLMO, _OLMO2 = Recipe("olmo", keys=_keys, rewrite=turned), Recipe("olmo2", keys=_keys2)

RECIPES = {
    "OlmoForCausalLM": _OLMO,
    "OLMoForCausalLM": _OLMO,
    "Olmo2ForCausalLM": _OLMO2,
    "Olmo3ForCausalLM": _OLMO2,
    "OlmoeForCausalLM": Recipe("olmoe", keys=_moe_keys, rewrite=merged_experts),
}
