"""Qwen 2 and 3, their mixtures, and what has their tensors.

Sources: llama.cpp's conversion/qwen.py, dots1.py and olmo.py, transformers' modeling_qwen*.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ref_engine.archs.hf.common import common_keys, pooling_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.recipe import Named, Recipe
from ref_engine.checkpoint import Config, Tensor
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
    "Dots1ForCausalLM": Recipe("dots1", keys=_dots_keys, rewrite=merged_experts),
    "SeedOssForCausalLM": Recipe("seed_oss"),
}
