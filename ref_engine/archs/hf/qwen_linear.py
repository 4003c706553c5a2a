"""Qwen 3 Next and Qwen 3.5: linear attention in three layers of four.

Sources: llama.cpp's conversion/qwen.py, transformers' modeling_qwen3_next.py and modeling_qwen3_5.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.qwen import merged_experts, moe_keys
from ref_engine.archs.hf.recipe import Named, Recipe, Tensors, minus_exp
from ref_engine.checkpoint import Array, Config, Tensor
from ref_engine.errors import ConvertError

_LINEAR = "linear_attention"
_SECTIONS = [11, 11, 10, 0]  # rotated pairs for time, height and width where config.json does not say


def _count_further(config: Config, tensors: Tensors) -> Config:
    """config.json need not say how many layers predict further tokens."""
    names = (name.removeprefix("model.") for name in tensors)
    found = [name.split(".")[2] for name in names if name.startswith("mtp.layers.")]
    n = 1 + max((int(layer) for layer in found if layer.isdecimal()), default=-1)
    if config.get("layer_types") is None:
        every = config.integer("full_attention_interval", default=4, at_least=1)
        kinds = [_LINEAR if (layer + 1) % every else "full_attention" for layer in range(config.n_layers)]
        config = config.changed(layer_types=kinds)
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
        keys.booleans("attention.recurrent_layers", [kind == _LINEAR for kind in kinds])
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


def _keys35(config: Config, keys: KeyWriter) -> None:
    _next_keys(config, keys)
    if "mrope_section" not in config.inner("rope_parameters"):
        keys.ints("rope.dimension_sections", _SECTIONS)


def _tiled(config: Config, tensor: Tensor, axis: int, width: int, skip: int = 0) -> Tensor:
    """Value heads of `width` along an axis, grouped by key head, come to lie round after round of all key heads.

    skip: rows before them. GGML repeats key heads in rounds.
    """
    groups = config.integer("linear_num_key_heads", at_least=1)
    heads = config.integer("linear_num_value_heads", at_least=1)
    if len(tensor.shape) <= axis or tensor.shape[axis] != skip + heads * width or heads % groups:
        raise ConvertError(f"tensor {tensor.name} of {list(tensor.shape)} does not hold {heads} heads of {width}")
    order = np.arange(heads * width).reshape(groups, heads // groups, width).swapaxes(0, 1).reshape(-1)
    order = np.concatenate([np.arange(skip), skip + order])
    return tensor.remade(tensor.shape, lambda x: x.take(order, axis=axis))


def _rewrite35(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    if "linear_attn." in name and config["linear_num_key_heads"] != config["linear_num_value_heads"]:
        value = config.integer("linear_value_head_dim", at_least=1)
        keys = 2 * config.integer("linear_num_key_heads") * config.integer("linear_key_head_dim")
        if ".in_proj_qkv." in name:
            tensor = _tiled(config, tensor, 0, value, skip=keys)
        elif ".conv1d" in name:
            tensor = _tiled(config, tensor.squeezed(), 0, value, skip=keys)
        elif ".in_proj_z." in name:
            tensor = _tiled(config, tensor, 0, value)
        elif name.endswith((".A_log", ".dt_bias")) or ".in_proj_b." in name or ".in_proj_a." in name:
            tensor = _tiled(config, tensor, 0, 1)
        elif ".out_proj." in name:
            tensor = _tiled(config, tensor, 1, value)
    yield from _rewrite_next(config, name, tensor)


_NEXT = Recipe(
    "qwen3next",
    prepare=_count_further,
    layers=_next_layers,
    rename=_rename_next,
    keys=_next_keys,
    rewrite=_rewrite_next,
)
_QWEN35 = replace(_NEXT, arch="qwen35", keys=_keys35, rewrite=_rewrite35)
_QWEN35_MOE = replace(_QWEN35, arch="qwen35moe")

RECIPES = {
    "Qwen3NextForCausalLM": _NEXT,
    "Qwen3_5ForCausalLM": _QWEN35,
    "Qwen3_5ForConditionalGeneration": _QWEN35,
    "Qwen3_5MoeForCausalLM": _QWEN35_MOE,
    "Qwen3_5MoeForConditionalGeneration": _QWEN35_MOE,
}
