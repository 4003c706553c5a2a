"""Mamba, Mamba 2, Falcon Mamba and Jamba.

Sources: llama.cpp's conversion/mamba.py and jamba.py, transformers' modeling_mamba.py, modeling_mamba2.py,
modeling_jamba.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.qwen import merged_experts
from ref_engine.archs.hf.recipe import Named, Recipe, layer_of, minus_exp
from ref_engine.checkpoint import Config, Tensor
from ref_engine.errors import ConvertError

_ANY_CONTEXT = 1 << 20  # a recurrence has no longest text


def _up(value: int, step: int) -> int:
    return -(value // -step) * step


def _padded(step: int, config: Config) -> Config:
    tokens, step = config.integer("vocab_size"), config.integer("pad_vocab_size_multiple", default=step, at_least=1)
    return config.changed(vocab_size=_up(tokens, step))


def _keys(config: Config, keys: KeyWriter) -> None:
    inner = config.integer("intermediate_size", "d_inner", default=2 * config.width)
    if inner != 2 * config.width:
        raise ConvertError(f"{config.where}: intermediate_size {inner} is not twice hidden_size {config.width}")
    keys.u32("context_length", _ANY_CONTEXT)
    keys.u32("embedding_length", config.width)
    keys.u32("feed_forward_length", 0)
    keys.u32("attention.head_count", 0)
    keys.u32("block_count", config.n_layers)
    keys.u32("ssm.conv_kernel", config.integer("conv_kernel", "d_conv", default=4))
    keys.u32("ssm.inner_size", inner)
    keys.u32("ssm.state_size", config.integer("state_size", "d_state", default=16))
    rank = config.first("time_step_rank", "dt_rank")
    keys.u32("ssm.time_step_rank", rank if isinstance(rank, int) and rank else _up(config.width, 16) // 16)
    keys.f32("attention.layer_norm_rms_epsilon", config.number("layer_norm_epsilon", "rms_norm_eps", default=1e-5))
    keys.boolean("ssm.dt_b_c_rms", config.get("model_type") == "falcon_mamba")
    keys.finish()


def _inner2(config: Config) -> int:
    expand = config.integer("mamba_expand", "expand", default=2)
    return config.integer("mamba_d_ssm", "intermediate_size", "d_inner", default=expand * config.width)


def _groups2(config: Config) -> int:
    return config.integer("n_groups", default=1, at_least=1)


def _keys2(config: Config, keys: KeyWriter) -> None:
    inner, head = _inner2(config), config.integer("mamba_d_head", "head_dim", default=64, at_least=1)
    if inner % head:
        raise ConvertError(f"{config.where}: heads of {head} do not fill the inner width {inner}")
    keys.u32("context_length", _ANY_CONTEXT)
    keys.u32("embedding_length", config.width)
    keys.u32("feed_forward_length", 0)
    keys.u32("attention.head_count", 0)
    keys.u32("block_count", config.n_layers)
    keys.u32("ssm.conv_kernel", config.integer("conv_kernel", "d_conv", default=4))
    keys.u32("ssm.inner_size", inner)
    keys.u32("ssm.state_size", config.integer("state_size", "d_state", default=128))
    keys.u32("ssm.time_step_rank", inner // head)
    keys.u32("ssm.group_count", _groups2(config))
    keys.f32("attention.layer_norm_rms_epsilon", config.number("layer_norm_epsilon", "rms_norm_eps", default=1e-5))
    keys.finish()


def state_space(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    if name.endswith(".A_log"):
        tensor = tensor.mapped(minus_exp)
    elif name.endswith("conv1d.weight"):
        tensor = tensor.squeezed()
    yield name, tensor


def _rewrite2(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    if name.endswith(".dt_bias"):
        name = name.removesuffix(".dt_bias") + ".dt_proj.bias"
    elif name.endswith((".A_log", ".D")):
        tensor = tensor.reshaped(*tensor.shape, 1)
    elif name.endswith("mixer.norm.weight"):
        tensor = tensor.reshaped(_groups2(config), _inner2(config) // _groups2(config))
    yield from state_space(config, name, tensor)


def _rename2(config: Config, name: str) -> str:
    return name.removeprefix("model.") if name.startswith(("model.backbone", "model.lm_head")) else name


def _jamba_keys(config: Config, keys: KeyWriter) -> None:
    offset, period = config.integer("attn_layer_offset"), config.integer("attn_layer_period", at_least=1)
    heads = [
        config.n_kv_heads if layer >= offset and (layer - offset) % period == 0 else 0
        for layer in range(config.n_layers)
    ]
    keys.u32("block_count", config.n_layers)
    keys.u32("context_length", config.first("max_position_embeddings", "n_ctx"))
    keys.u32("embedding_length", config.width)
    keys.u32("feed_forward_length", config["intermediate_size"])
    keys.u32("attention.head_count", config.n_heads)
    keys.count("attention.head_count_kv", heads)
    keys.u32("ssm.conv_kernel", config.integer("mamba_d_conv", default=4))
    keys.u32("ssm.inner_size", config.integer("mamba_expand") * config.width)
    keys.u32("ssm.state_size", config.integer("mamba_d_state", default=16))
    rank = config.get("mamba_dt_rank")
    keys.u32("ssm.time_step_rank", rank if isinstance(rank, int) and rank else _up(config.width, 16) // 16)
    keys.f32("attention.layer_norm_rms_epsilon", config.number("layer_norm_epsilon", "rms_norm_eps", default=1e-6))
    keys.u32("expert_count", config.first("num_local_experts", "num_experts"))
    keys.u32("expert_used_count", config.first("num_experts_per_tok", "num_experts_per_token"))
    keys.finish()


def _jamba_rename(config: Config, name: str) -> str:
    """A layer without a mixture may have its network as the only expert."""
    name = name.replace(".moe.", ".feed_forward.")
    layer = layer_of(name)
    if layer is not None:
        offset, period = config.integer("expert_layer_offset"), config.integer("expert_layer_period", at_least=1)
        if layer < offset or (layer - offset) % period:
            name = name.replace(".experts.0.", ".")
    return name


def _jamba_rewrite(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    for new, made in merged_experts(config, name.replace(".feed_forward.experts.", ".mlp.experts."), tensor):
        yield from state_space(config, new, made)


_MAMBA = Recipe(
    "mamba",
    prepare=lambda config, tensors: _padded(8, config),
    keys=_keys,
    rewrite=state_space,
    vocabulary="byte-level or sentencepiece",
)

RECIPES = {
    "MambaForCausalLM": _MAMBA,
    "FalconMambaForCausalLM": _MAMBA,
    "Mamba2ForCausalLM": Recipe(
        "mamba2",
        prepare=lambda config, tensors: _padded(16, config),
        rename=_rename2,
        keys=_keys2,
        rewrite=_rewrite2,
        vocabulary="sentencepiece or byte-level",
    ),
    "JambaForCausalLM": Recipe(
        "jamba", rename=_jamba_rename, keys=_jamba_keys, rewrite=_jamba_rewrite, vocabulary="sentencepiece or fallback"
    ),
}
