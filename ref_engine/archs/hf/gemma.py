"""Gemma 1, 2 and 3: norms are kept as the distance from one.

Sources: llama.cpp's conversion/gemma.py, transformers' modeling_gemma*.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ref_engine.archs.hf.common import common_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.recipe import Named, Recipe
from ref_engine.checkpoint import Config, Tensor
from ref_engine.errors import ConvertError


def shifted_norms(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    if name.endswith("norm.weight"):
        tensor = tensor.mapped(lambda x: x + x.dtype.type(1))
    yield name, tensor


def _without_head(config: Config, name: str) -> str | None:
    """The output matrix is the embedding's; some tools save it twice."""
    return None if name == "lm_head.weight" else name


def _keys(config: Config, keys: KeyWriter) -> None:
    keys.u32("context_length", config["max_position_embeddings"])
    keys.u32("embedding_length", config["hidden_size"])
    keys.u32("block_count", config.n_layers)
    keys.u32("feed_forward_length", config["intermediate_size"])
    keys.u32("attention.head_count", config["num_attention_heads"])
    keys.u32("attention.head_count_kv", config.n_kv_heads)
    keys.f32("attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    keys.u32("attention.key_length", config["head_dim"])
    keys.u32("attention.value_length", config["head_dim"])
    keys.finish()


def _keys2(config: Config, keys: KeyWriter) -> None:
    _keys(config, keys)
    keys.f32("attn_logit_softcapping", config["attn_logit_softcapping"])
    keys.f32("final_logit_softcapping", config["final_logit_softcapping"])
    keys.u32("attention.sliding_window", config["sliding_window"])


def _keys3(config: Config, keys: KeyWriter) -> None:
    if config.get("attn_logit_softcapping") is not None:
        raise ConvertError(f"{config.where}: attn_logit_softcapping is not known in this family")
    common_keys(config, keys)
    keys.u32("context_length", config.get("max_position_embeddings", 131072))
    keys.u32("attention.head_count", config.get("num_attention_heads", 8))
    keys.f32("attention.layer_norm_rms_epsilon", config.get("rms_norm_eps", 1e-6))
    keys.u32("attention.key_length", config.get("head_dim", 256))
    keys.u32("attention.value_length", config.get("head_dim", 256))
    keys.f32("rope.freq_base", config.rope.get("rope_theta", 1_000_000.0))
    if config.get("final_logit_softcapping"):
        keys.f32("final_logit_softcapping", config["final_logit_softcapping"])
    if config.get("sliding_window_pattern") != 1:
        keys.u32("attention.sliding_window", config["sliding_window"])
    keys.u32("attention.head_count_kv", config.get("num_key_value_heads", 4))


def _no_prefix(config: Config, keys: KeyWriter) -> None:
    keys.boolean("tokenizer.ggml.add_space_prefix", False, full=True)


def _end_of_turn(config: Config, keys: KeyWriter) -> None:
    keys.u32("tokenizer.ggml.eot_token_id", 107, full=True)
    _no_prefix(config, keys)


_GEMMA = Recipe(
    "gemma",
    rename=_without_head,
    rewrite=shifted_norms,
    keys=_keys,
    vocabulary="sentencepiece",
    vocabulary_keys=_end_of_turn,
)
_GEMMA3 = Recipe("gemma3", rewrite=shifted_norms, keys=_keys3, vocabulary="gemma3")

RECIPES = {
    "GemmaForCausalLM": _GEMMA,
    "Gemma2ForCausalLM": replace(_GEMMA, arch="gemma2", keys=_keys2, vocabulary_keys=_no_prefix),
    "Gemma3ForCausalLM": _GEMMA3,
    "Gemma3ForConditionalGeneration": _GEMMA3,
}
