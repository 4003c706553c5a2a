"""Llama, Mistral, Mixtral and what has Llama's tensors.

Sources: llama.cpp's conversion/llama.py, transformers' modeling_llama.py and modeling_mixtral.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ref_engine.archs.hf.common import common_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.recipe import Named, Recipe
from ref_engine.archs.hf.rotary import interleaved, llama3_factors
from ref_engine.checkpoint import Config, Tensor

_CODE_LLAMA_TOKENS, _GRANITE_CODE_TOKENS = 32016, 49152


def llama_keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.u32("vocab_size", config["vocab_size"])
    keys.u32("rope.dimension_count", config.head_width)


def turned(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    """Query and key rows in the order of Llama's graph."""
    if name.endswith(("q_proj.weight", "q_proj.bias")):
        tensor = interleaved(tensor, config.n_heads)
    elif name.endswith(("k_proj.weight", "k_proj.bias")):
        tensor = interleaved(tensor, config.n_kv_heads)
    yield name, tensor


def _vocabulary_keys(config: Config, keys: KeyWriter) -> None:
    tokens = config.get("vocab_size")
    if tokens == _CODE_LLAMA_TOKENS:
        keys.u32("tokenizer.ggml.eot_token_id", 32010, full=True)
    if tokens == _GRANITE_CODE_TOKENS:
        keys.boolean("tokenizer.ggml.add_bos_token", False, full=True)


def _ministral_keys(config: Config, keys: KeyWriter) -> None:
    llama_keys(config, keys)
    if config.get("model_type") == "ministral3":
        rope = config.inner("rope_parameters")
        keys.f32("rope.scaling.yarn_log_multiplier", rope["mscale_all_dim"])
        keys.f32("attention.temperature_scale", rope["llama_4_scaling_beta"])


LLAMA = Recipe(
    "llama",
    keys=llama_keys,
    rewrite=turned,
    extra=llama3_factors,
    experts=("w1", "w2", "w3"),
    vocabulary="llama",
    vocabulary_keys=_vocabulary_keys,
)

_MINISTRAL = replace(LLAMA, arch="mistral3", keys=_ministral_keys)

RECIPES = {
    "LlamaForCausalLM": LLAMA,
    "LLaMAForCausalLM": LLAMA,
    "LlamaModel": replace(LLAMA, rename=lambda config, name: f"model.{name}"),
    "Ministral3ForCausalLM": _MINISTRAL,
    "Mistral3ForConditionalGeneration": _MINISTRAL,
    "MistralForCausalLM": LLAMA,
    "MixtralForCausalLM": LLAMA,
    "ArceeForCausalLM": replace(LLAMA, arch="arcee"),
    "SmolLM3ForCausalLM": replace(LLAMA, arch="smollm3"),
}
