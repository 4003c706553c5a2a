"""Granite 3 and its mixtures.

Sources: llama.cpp's conversion/granite.py, transformers' modeling_granite.py and modeling_granitemoe*.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.llama import LLAMA, llama_keys, turned
from ref_engine.archs.hf.qwen import halves
from ref_engine.archs.hf.recipe import Named, layer_of
from ref_engine.checkpoint import Config, Tensor

_SCALES = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}


def _keys(config: Config, keys: KeyWriter) -> None:
    llama_keys(config.without("head_dim"), keys)
    for name, key in _SCALES.items():
        if config.get(name):
            keys.f32(key, config[name])


def _moe_keys(config: Config, keys: KeyWriter) -> None:
    _keys(config, keys)
    if config.get("shared_intermediate_size"):
        keys.u32("expert_shared_feed_forward_length", config["shared_intermediate_size"])


def _rewrite(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    """Gate and up are one matrix, of the experts and of what all tokens share."""
    layer = f"blk.{layer_of(name)}"
    shared = "_shexp" if config.get("num_local_experts") else ""
    if name.endswith("block_sparse_moe.input_linear.weight"):
        yield from halves(tensor, f"{layer}.ffn_gate_exps.weight", f"{layer}.ffn_up_exps.weight")
    elif name.endswith("shared_mlp.input_linear.weight"):
        yield from halves(tensor, f"{layer}.ffn_gate{shared}.weight", f"{layer}.ffn_up{shared}.weight")
    elif name.endswith("shared_mlp.output_linear.weight"):
        yield f"{layer}.ffn_down{shared}.weight", tensor
    else:
        yield from turned(config, name, tensor)


_MOE = replace(LLAMA, arch="granitemoe", keys=_moe_keys, rewrite=_rewrite)

RECIPES = {
    "GraniteForCausalLM": replace(LLAMA, arch="granite", keys=_keys),
    "GraniteMoeForCausalLM": _MOE,
    "GraniteMoeSharedForCausalLM": _MOE,
}
