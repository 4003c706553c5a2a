"""Keys that nearly every family has, by the names that configurations use for them.

Source: `TextModel.set_gguf_parameters` of llama.cpp's conversion/base.py.
"""

from __future__ import annotations

from typing import Any

from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.checkpoint import Config
from ref_engine.errors import ConvertError

SOFTMAX, SIGMOID, SQRT_SOFTPLUS = 1, 2, 4
MEAN, CLS, LAST = 1, 2, 3
_POOLING = {"pooling_mode_mean_tokens": MEAN, "pooling_mode_cls_token": CLS, "pooling_mode_lasttoken": LAST}
_BY_NAME = {"mean": MEAN, "cls": CLS, "lasttoken": LAST}
_GATING = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "sqrtsoftplus": SQRT_SOFTPLUS}
_CONTEXT = ("max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length")
_FEED_FORWARD = (
    "prefix_dense_intermediate_size",
    "dense_intermediate_size",
    "intermediate_size",
    "n_inner",
    "hidden_dim",
)
_SCORES = ("score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func",
           "expert_selection_fn")  # fmt: skip


def common_keys(config: Config, keys: KeyWriter, layers: int | None = None) -> None:
    """layers: where the file has more of them than config.json says."""
    keys.u32("block_count", config.n_layers if layers is None else layers)
    keys.take("context_length", config.first(*_CONTEXT))
    keys.take("embedding_length", config.first("hidden_size", "n_embd", "dim"))
    _count(keys, "feed_forward_length", config.first(*_FEED_FORWARD))
    _count(keys, "attention.head_count", config.first("num_attention_heads", "n_head", "n_heads"))
    _count(keys, "attention.head_count_kv", config.first("num_key_value_heads", "n_kv_heads"))
    if config.get("is_causal") is False:
        keys.boolean("attention.causal", False)
    rope_keys(config, keys)
    for name, value in (
        ("attention.layer_norm_rms_epsilon", config.first("rms_norm_eps", "norm_eps")),
        ("attention.layer_norm_epsilon", config.first("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")),
    ):
        if value is not None:
            keys.f32(name, value)
    keys.take("expert_count", config.first("num_local_experts", "num_experts", "n_routed_experts"))
    keys.take("expert_used_count", config.first("num_experts_per_tok", "num_experts_per_token", "top_k_experts"))
    keys.take("expert_group_count", config.get("n_group"))
    keys.take("expert_group_used_count", config.get("topk_group"))
    if (score := config.first(*_SCORES)) is not None:
        if score not in _GATING:
            raise ConvertError(f"{config.where}: experts scored by {score!r} are not known")
        keys.u32("expert_gating_func", _GATING[score])
    if (head_dim := config.get("head_dim")) is not None:
        keys.u32("attention.key_length", head_dim)
        keys.u32("attention.value_length", head_dim)
    keys.finish()


def _count(keys: KeyWriter, name: str, value: Any) -> None:
    if value is not None:
        keys.count(name, value)


def rope_keys(config: Config, keys: KeyWriter) -> None:
    """rope.*: base and scaling; for llama3 and dynamic scaling nothing, a family's own code takes care of them."""
    rope, both = config.rope, config.inner("rope_parameters")
    kind = rope.get("rope_type")
    if kind is not None and not isinstance(kind, str):
        raise ConvertError(f"{rope.where}: rope_type must be a text")
    if kind == "linear" and "factor" in rope:
        keys.string("rope.scaling.type", "linear")
        keys.f32("rope.scaling.factor", rope["factor"])
    elif kind == "yarn" and "factor" in rope:
        keys.string("rope.scaling.type", "yarn")
        keys.f32("rope.scaling.factor", rope["factor"])
        keys.u32("rope.scaling.original_context_length", rope["original_max_position_embeddings"])
        for name, value in (
            ("ext_factor", rope.get("extrapolation_factor")),
            ("attn_factor", rope.first("attention_factor", "attn_factor")),
            ("beta_fast", rope.get("beta_fast")),
            ("beta_slow", rope.get("beta_slow")),
        ):
            if value is not None:
                keys.f32(f"rope.scaling.yarn_{name}", value)
    elif kind in ("su", "longrope"):
        keys.string("rope.scaling.type", "longrope")
    if "mrope_section" in both:
        sections = both.list_of("mrope_section", int)
        keys.ints("rope.dimension_sections", [*sections, 0, 0, 0, 0][:4])
    if rope.get("rope_theta") is not None:
        keys.f32("rope.freq_base", rope["rope_theta"])
    if (local := both.inner("sliding_attention").get("rope_theta")) is not None:
        keys.f32("rope.freq_base_swa", local)


def pooling_keys(config: Config, keys: KeyWriter) -> None:
    """How sentence-transformers makes one vector of all tokens': its module Pooling, where there is one."""
    if "pooling" not in config:
        return
    pooling = config.inner("pooling")
    chosen = next((kind for name, kind in _POOLING.items() if pooling.get(name)), None)
    chosen = chosen or _BY_NAME.get(str(pooling.get("pooling_mode")))
    if chosen is None:
        raise ConvertError(f"{pooling.where}: only mean, cls and lasttoken are known")
    keys.u32("pooling_type", chosen)
