"""Qwen 2 and 3, their mixtures, Qwen 3 Next, and what has their tensors.

Sources: llama.cpp's conversion/qwen.py, dots1.py and olmo.py, transformers' modeling_qwen*.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ref_engine.archs.hf.common import common_keys, pooling_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.recipe import Named, Recipe, Tensors, minus_exp
from ref_engine.checkpoint import Array, Config, Tensor
from ref_engine.errors import ConvertError


def _dense_keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    pooling_keys(config, keys)


def moe_keys(config: Config, keys: KeyWriter, layers: int | None = None) -> None:
    common_keys(config, keys, layers)
    keys.take("expert_feed_forward_length", config.get("moe_intermediate_size"))
    keys.take("expert_shared_feed_forward_length", config.get("shared_expert_intermediate_size"))


def merged_experts(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    """Experts that the checkpoint stacks already: gate and up are one above the other there."""
    if name.removesuffix(".weight").endswith("mlp.experts.down_proj"):
        yield f"{name.removesuffix('.weight')}.weight", tensor
    elif name.removesuffix(".weight").endswith("mlp.experts.gate_up_proj"):
        base = name.removesuffix(".weight").removesuffix("gate_up_proj")
        yield from halves(tensor, f"{base}gate_proj.weight", f"{base}up_proj.weight")
    else:
        yield name, tensor


def halves(tensor: Tensor, first: str, second: str) -> Iterable[Named]:
    """(E, 2F, D) -> the upper and the lower (E, F, D); also (2F, D)."""
    tensor.expect_axes(2, 3)
    rows = tensor.shape[-2] // 2
    if tensor.shape[-2] % 2:
        raise ConvertError(f"tensor {tensor.name} of {list(tensor.shape)} does not hold two halves")
    shape = (*tensor.shape[:-2], rows, tensor.shape[-1])
    yield first, tensor.remade(shape, lambda x: x[..., :rows, :])
    yield second, tensor.remade(shape, lambda x: x[..., rows:, :])


def _count_further(config: Config, tensors: Tensors) -> Config:
    """config.json need not say how many layers predict further tokens."""
    names = (name.removeprefix("model.") for name in tensors)
    found = [name.split(".")[2] for name in names if name.startswith("mtp.layers.")]
    n = 1 + max((int(layer) for layer in found if layer.isdecimal()), default=-1)
    return config.changed(mtp_num_hidden_layers=n)


def _next_layers(config: Config) -> int:
    return config.n_layers + config.integer("mtp_num_hidden_layers", default=0)


_MTP = {"fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm", "norm": "shared_head.norm"}


def _rename_next(config: Config, name: str) -> str | None:
    """Layers that predict further tokens follow the others."""
    name = name.removeprefix("model.") if name.startswith("model.mtp.") else name
    if not name.startswith("mtp."):
        return name
    parts = name.split(".", 3)
    if len(parts) == 4 and parts[1] == "layers" and parts[2].isdecimal():
        return f"model.layers.{config.n_layers + int(parts[2])}.{parts[3]}"
    if len(parts) == 3 and parts[1] in _MTP:
        return f"model.layers.{config.n_layers}.{_MTP[parts[1]]}.{parts[2]}"
    return name


def _next_keys(config: Config, keys: KeyWriter) -> None:
    layers = _next_layers(config)
    moe_keys(config, keys, layers)
    if layers > config.n_layers:
        keys.u32("nextn_predict_layers", layers - config.n_layers)
    value_heads, value_dim = config["linear_num_value_heads"], config["linear_value_head_dim"]
    keys.u32("ssm.conv_kernel", config["linear_conv_kernel_dim"])
    keys.u32("ssm.state_size", config["linear_key_head_dim"])
    keys.u32("ssm.group_count", config["linear_num_key_heads"])
    keys.u32("ssm.time_step_rank", value_heads)
    keys.u32("ssm.inner_size", value_heads * value_dim)
    if config.get("layer_types") is not None:
        kinds = config.list_of("layer_types", str, config.n_layers)
        kinds += ["full_attention"] * (layers - config.n_layers)
        keys.booleans("attention.recurrent_layers", [kind == "linear_attention" for kind in kinds])
    keys.u32("full_attention_interval", config.get("full_attention_interval", 4))
    share = config.rope.number("partial_rotary_factor", default=0.25)
    keys.u32("rope.dimension_count", int(config.head_width * share))


def _rewrite_next(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    if name.endswith(".A_log"):
        yield name, tensor.mapped(minus_exp)
    elif name.endswith(".dt_bias"):
        yield name.removesuffix(".dt_bias") + ".dt_proj.bias", tensor
    elif "conv1d" in name:
        yield name, tensor.squeezed()
    elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        yield name, tensor.mapped(lambda x: x + x.dtype.type(1))
    elif name.endswith("in_proj_qkvz.weight"):
        yield from _ungrouped(config, name, tensor)
    else:
        yield from merged_experts(config, name, tensor)


def _ungrouped(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    """Rows (q, k, v, z) of each key head in turn -> all q, all k, all v; and all z."""
    heads = config.integer("linear_num_key_heads", at_least=1)
    key, value = config.integer("linear_key_head_dim"), config.integer("linear_value_head_dim")
    group = config.integer("linear_num_value_heads") // heads * value
    tensor.expect_axes(2)
    if tensor.shape[0] != heads * (2 * key + 2 * group):
        raise ConvertError(
            f"tensor {tensor.name} of {list(tensor.shape)} does not hold {heads} groups of q, k, v and z"
        )
    width, prefix = tensor.shape[1], name.split(".linear_attn.")[0].replace("model.layers.", "blk.")

    def part(x: Array, *cuts: tuple[int, int]) -> Array:
        grouped = x.reshape(heads, -1, width)
        return np.concatenate([grouped[:, start:stop].reshape(-1, width) for start, stop in cuts])

    cuts = ((0, key), (key, 2 * key), (2 * key, 2 * key + group))
    rows = heads * (2 * key + group)
    yield f"{prefix}.attn_qkv.weight", tensor.remade((rows, width), lambda x: part(x, *cuts))
    last = (2 * key + group, 2 * key + 2 * group)
    yield f"{prefix}.attn_gate.weight", tensor.remade((heads * group, width), lambda x: part(x, last))


def _dots_keys(config: Config, keys: KeyWriter) -> None:
    moe_keys(config, keys)
    keys.u32("leading_dense_block_count", config["first_k_dense_replace"])
    keys.u32("expert_shared_count", config["n_shared_experts"])
    keys.f32("expert_weights_scale", config["routed_scaling_factor"])
    keys.boolean("expert_weights_norm", config["norm_topk_prob"])


_QWEN2 = Recipe("qwen2", keys=_dense_keys, vocabulary="sentencepiece or byte-level")

RECIPES = {
    "Qwen2ForCausalLM": _QWEN2,
    "Qwen2Model": replace(_QWEN2, rename=lambda config, name: f"model.{name}"),
    "Qwen2MoeForCausalLM": Recipe("qwen2moe", keys=moe_keys, rewrite=merged_experts),
    "Qwen3ForCausalLM": replace(_QWEN2, arch="qwen3"),
    "Qwen3Model": replace(_QWEN2, arch="qwen3", rename=lambda config, name: f"model.{name}"),
    "Qwen3MoeForCausalLM": Recipe("qwen3moe", keys=moe_keys, rewrite=merged_experts),
    "Qwen3NextForCausalLM": Recipe(
        "qwen3next",
        prepare=_count_further,
        layers=_next_layers,
        rename=_rename_next,
        keys=_next_keys,
        rewrite=_rewrite_next,
    ),
    "Dots1ForCausalLM": Recipe("dots1", keys=_dots_keys, rewrite=merged_experts),
    "SeedOssForCausalLM": Recipe("seed_oss"),
}
