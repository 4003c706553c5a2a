"""GPT-2 and StarCoder, GPT-NeoX, BLOOM, Falcon, MPT, StarCoder 2, StableLM.

Sources: llama.cpp's conversion/ (a file of each one's name), transformers' modeling files of the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.recipe import Named, Recipe
from ref_engine.checkpoint import Array, Config, Tensor, stacked
from ref_engine.errors import ConvertError


def _gpt2_keys(config: Config, keys: KeyWriter) -> None:
    keys.u32("block_count", config.n_layers)
    keys.u32("context_length", config.integer("n_ctx", "n_positions"))
    keys.u32("embedding_length", config.width)
    keys.u32("feed_forward_length", 4 * config.width)
    keys.u32("attention.head_count", config.n_heads)
    keys.f32("attention.layer_norm_epsilon", config["layer_norm_epsilon"])
    keys.finish()


def _gpt2_rename(config: Config, name: str) -> str | None:
    return None if name.endswith((".attn.bias", ".attn.masked_bias")) else name


def _gpt2_rewrite(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    """Its linear layers are kept as (inputs, outputs)."""
    if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        tensor = tensor.transposed()
    yield name, tensor


def _starcoder_keys(config: Config, keys: KeyWriter) -> None:
    keys.u32("context_length", config["n_positions"])
    keys.u32("embedding_length", config.width)
    keys.u32("feed_forward_length", 4 * config.width)
    keys.u32("block_count", config.n_layers)
    keys.u32("attention.head_count", config.n_heads)
    keys.u32("attention.head_count_kv", 1)
    keys.f32("attention.layer_norm_epsilon", config["layer_norm_epsilon"])
    keys.finish()


def _ungrouped(config: Config, tensor: Tensor) -> Tensor:
    """Rows (q, k, v) of each head in turn -> all q, all k, all v."""
    heads = config.n_heads
    if tensor.shape[0] % (3 * heads):
        raise ConvertError(f"tensor {tensor.name} of {list(tensor.shape)} does not hold q, k and v of {heads} heads")

    def turned(x: Array) -> Array:
        return x.reshape(heads, 3, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)

    return tensor.remade(tensor.shape, turned)


def _grouped_qkv(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    if re.search(r"attention\.query_key_value\.(weight|bias)$", name):
        tensor = _ungrouped(config, tensor)
    yield name, tensor


def _neox_keys(config: Config, keys: KeyWriter) -> None:
    share = config.number("rotary_pct", default=config.rope.number("partial_rotary_factor", default=0.25))
    keys.u32("context_length", config["max_position_embeddings"])
    keys.u32("embedding_length", config.width)
    keys.u32("block_count", config.n_layers)
    keys.u32("feed_forward_length", config["intermediate_size"])
    keys.u32("rope.dimension_count", int(share * (config.width // config.n_heads)))
    keys.u32("attention.head_count", config.n_heads)
    keys.boolean("use_parallel_residual", config.get("use_parallel_residual", True))
    keys.f32("attention.layer_norm_epsilon", config["layer_norm_eps"])


def _bloom_keys(config: Config, keys: KeyWriter) -> None:
    keys.u32("context_length", config.get("seq_length", config.width))
    keys.u32("embedding_length", config.width)
    keys.u32("feed_forward_length", 4 * config.width)
    keys.u32("block_count", config.n_layers)
    keys.u32("attention.head_count", config.n_heads)
    keys.u32("attention.head_count_kv", config.n_heads)
    keys.f32("attention.layer_norm_epsilon", config["layer_norm_epsilon"])
    keys.finish()


def _falcon_kv_heads(config: Config) -> int:
    """The first Falcons share one key and value head, whatever num_kv_heads says."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    return config.integer("num_kv_heads", "n_head_kv", default=config.n_heads, at_least=1)


def _falcon_keys(config: Config, keys: KeyWriter) -> None:
    keys.u32("context_length", 2048)  # config.json does not say it
    keys.string("tensor_data_layout", "jploski")
    keys.u32("embedding_length", config.width)
    keys.u32("feed_forward_length", 4 * config.width)
    keys.u32("block_count", config.n_layers)
    keys.u32("attention.head_count", config.n_heads)
    keys.u32("attention.head_count_kv", _falcon_kv_heads(config))
    keys.f32("attention.layer_norm_epsilon", config["layer_norm_epsilon"])
    keys.finish()


def _falcon_rewrite(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    """Rows: the query heads of each key head, it and its value head, in turn -> all q, all k, all v."""
    if "query_key_value" in name:
        groups, heads, width = _falcon_kv_heads(config), config.n_heads, config.width // config.n_heads
        if heads % groups or tensor.shape[0] != (heads + 2 * groups) * width:
            raise ConvertError(f"tensor {tensor.name} of {list(tensor.shape)} does not hold {heads} and {groups} heads")

        def turned(x: Array) -> Array:
            grouped = x.reshape(groups, heads // groups + 2, width, *x.shape[1:])
            parts = (grouped[:, :-2], grouped[:, -2], grouped[:, -1])
            return np.concatenate([part.reshape(-1, *x.shape[1:]) for part in parts])

        tensor = tensor.remade(tensor.shape, turned)
    yield name, tensor


def _mpt_keys(config: Config, keys: KeyWriter) -> None:
    attention = config.inner("attn_config")
    keys.u32("context_length", config["max_seq_len"])
    keys.u32("embedding_length", config["d_model"])
    keys.u32("block_count", config.n_layers)
    keys.u32("feed_forward_length", 4 * config.integer("d_model"))
    keys.u32("attention.head_count", config["n_heads"])
    if attention.get("kv_n_heads"):
        keys.u32("attention.head_count_kv", attention["kv_n_heads"])
    keys.f32("attention.layer_norm_epsilon", 1e-5)
    if attention.get("clip_qkv") is not None:
        keys.f32("attention.clamp_kqv", attention["clip_qkv"])
    keys.f32("attention.max_alibi_bias", attention.get("alibi_bias_max", 8) if attention.get("alibi", True) else 0.0)


def _stablelm_keys(config: Config, keys: KeyWriter) -> None:
    keys.u32("context_length", config["max_position_embeddings"])
    keys.u32("embedding_length", config.width)
    keys.u32("block_count", config.n_layers)
    keys.u32("feed_forward_length", config["intermediate_size"])
    share = config.rope.number("partial_rotary_factor", default=0.25)
    keys.u32("rope.dimension_count", int(share * (config.width // config.n_heads)))
    keys.u32("attention.head_count", config.n_heads)
    keys.u32("attention.head_count_kv", config.n_kv_heads)
    keys.boolean("use_parallel_residual", config.get("use_parallel_residual", True))
    keys.f32("attention.layer_norm_epsilon", config.first("layer_norm_eps", "norm_eps"))
    keys.finish()


def _stack_norms(config: Config, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Norms of single heads, NAME.norms.HEAD.weight, become one matrix."""
    made: dict[str, Tensor] = {}
    groups: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        if found := re.fullmatch(r"(.*\.[qk]_layernorm)\.norms\.(\d+)\.weight", name):
            groups.setdefault(found[1], []).append(tensor)
            heads = config.n_heads if found[1].endswith("q_layernorm") else config.n_kv_heads
            if len(groups[found[1]]) == heads:
                ordered = [tensors.get(f"{found[1]}.norms.{head}.weight") for head in range(heads)]
                if None in ordered:
                    raise ConvertError(f"tensors {found[1]}.norms.* are not numbered from 0 to {heads - 1}")
                made[f"{found[1]}.weight"] = stacked([t for t in ordered if t is not None])
        else:
            made[name] = tensor
    missing = [name for name in groups if f"{name}.weight" not in made]
    if missing:
        raise ConvertError(f"tensors {missing[0]}.norms.* are fewer than there are heads")
    return made


_MPT = Recipe("mpt", keys=_mpt_keys)
_BLOOM = Recipe(
    "bloom", keys=_bloom_keys, rename=lambda config, name: name.removeprefix("transformer."), rewrite=_grouped_qkv
)

RECIPES = {
    "GPT2LMHeadModel": Recipe("gpt2", keys=_gpt2_keys, rename=_gpt2_rename, rewrite=_gpt2_rewrite),
    "GPTBigCodeForCausalLM": Recipe("starcoder", keys=_starcoder_keys),
    "GPTNeoXForCausalLM": Recipe("gptneox", keys=_neox_keys, rewrite=_grouped_qkv),
    "BloomForCausalLM": _BLOOM,
    "BloomModel": _BLOOM,
    "FalconForCausalLM": Recipe("falcon", keys=_falcon_keys, rewrite=_falcon_rewrite),
    "RWForCausalLM": Recipe("falcon", keys=_falcon_keys, rewrite=_falcon_rewrite),
    "MPTForCausalLM": _MPT,
    "MptForCausalLM": _MPT,  # as transformers calls it
    "StableLmForCausalLM": Recipe("stablelm", keys=_stablelm_keys, gather=_stack_norms),
    "StableLMEpochForCausalLM": Recipe("stablelm", keys=_stablelm_keys, gather=_stack_norms),
    "Starcoder2ForCausalLM": Recipe("starcoder2"),
}
