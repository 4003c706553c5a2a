"""Families of one recipe each: Apertus, ERNIE 4.5, EXAONE 4, Hunyuan, LFM2, MiniMax M2, Nemotron.

Sources: llama.cpp's conversion/ (llama.py, ernie.py, exaone.py, hunyuan.py, lfm2.py, minimax.py, nemotron.py),
transformers' modeling files of the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from ref_engine.archs.hf.common import SIGMOID, common_keys
from ref_engine.archs.hf.gemma import shifted_norms
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.llama import LLAMA, llama_keys
from ref_engine.archs.hf.qwen import merged_experts
from ref_engine.archs.hf.recipe import Named, Recipe, Tensors, layer_of
from ref_engine.archs.hf.rotary import llama3_factors
from ref_engine.checkpoint import Config, Tensor
from ref_engine.errors import ConvertError
from ref_engine.files.types import GGUFValueType

_XIELU = ("alpha_n", "alpha_p", "beta", "eps")


def _read_xielu(config: Config, tensors: Tensors) -> Config:
    """Apertus keeps four numbers of each layer's activation as tensors; GGUF has them as keys."""
    found: dict[str, list[float]] = {}
    for part in _XIELU:
        names = [f"model.layers.{layer}.mlp.act_fn.{part}" for layer in range(config.n_layers)]
        for name in names:
            if name not in tensors:
                raise ConvertError(f"tensor {name} is missing")
            if tensors[name].shape not in ((), (1,)):
                raise ConvertError(f"tensor {name} of {list(tensors[name].shape)} is not one number")
        found[f"xielu_{part}"] = [float(tensors[name].whole().reshape(-1)[0]) for name in names]
    return config.changed(**found)


def _apertus_keys(config: Config, keys: KeyWriter) -> None:
    llama_keys(config, keys)
    for part in _XIELU:
        keys.array(f"xielu.{part}", config[f"xielu_{part}"], GGUFValueType.FLOAT32, full=True)


APERTUS = replace(
    LLAMA,
    arch="apertus",
    prepare=_read_xielu,
    rename=lambda config, name: None if ".act_fn." in name else name,
    rewrite=lambda config, name, tensor: [(name, tensor)],
    keys=_apertus_keys,
)


def _ernie_rename(config: Config, name: str) -> str | None:
    """Parts that predict further tokens are left out."""
    if re.match(r"model\.mtp_(block|emb_norm|hidden_norm|linear_proj)\.", name):
        return None
    return name.replace("ernie.", "model.")


def _ernie_rewrite(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    if "qkv_proj" in name:
        q, k = config.n_heads * config.head_width, config.n_kv_heads * config.head_width
        parts = zip("qkv", tensor.split(q, k, k), strict=True)
        yield from ((name.replace("qkv_proj", f"{part}_proj"), rows) for part, rows in parts)
    elif "up_gate_proj" in name:
        half = (tensor.shape or (0,))[0] // 2
        gate, up = tensor.split(half, half)
        yield name.replace("up_gate_proj", "gate_proj"), gate
        yield name.replace("up_gate_proj", "up_proj"), up
    else:
        yield from merged_experts(config, name, tensor)


def _ernie_moe_keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.u32("expert_count", config["moe_num_experts"])
    keys.u32("expert_used_count", config["moe_k"])
    keys.u32("interleave_moe_layer_step", config["moe_layer_interval"])
    keys.u32("leading_dense_block_count", config["moe_layer_start_index"])
    keys.take("expert_feed_forward_length", config.get("moe_intermediate_size"))
    if config.get("moe_num_shared_experts") is not None:
        keys.u32("expert_shared_count", config["moe_num_shared_experts"])
        if shared := config.integer("moe_num_shared_experts"):
            # llama.cpp's converter takes intermediate_size over the key heads, which is the same in ERNIE 4.5 21B only
            keys.u32("expert_shared_feed_forward_length", shared * config.integer("moe_intermediate_size"))


def _prefix(config: Config, keys: KeyWriter) -> None:
    if isinstance(add := config.inner("tokenizer_config").get("add_prefix_space"), bool):
        keys.boolean("tokenizer.ggml.add_space_prefix", add, full=True)


ERNIE = Recipe(
    "ernie4_5",
    rename=_ernie_rename,
    rewrite=_ernie_rewrite,
    vocabulary="sentencepiece",
    vocabulary_keys=_prefix,
)
ERNIE_MOE = replace(ERNIE, arch="ernie4_5-moe", keys=_ernie_moe_keys, experts=("gate_proj", "up_proj", "down_proj"))


def _exaone_keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.u32("vocab_size", config["vocab_size"])
    if config.get("sliding_window") is None:
        return
    keys.u32("attention.sliding_window", config["sliding_window"])
    pattern, layers = config.get("sliding_window_pattern"), range(config.n_layers)
    if config.get("layer_types") is not None:
        kinds = config.list_of("layer_types", str, config.n_layers)
        windows = [kind == "sliding_attention" for kind in kinds]
    elif isinstance(pattern, str) and pattern:  # such as LLLG
        windows = [pattern[layer % len(pattern)] == "L" for layer in layers]
    else:
        every = config.integer("sliding_window_pattern", at_least=1)
        windows = [(layer + 1) % every != 0 for layer in layers]
    keys.booleans("attention.sliding_window_pattern", windows)


EXAONE4 = Recipe("exaone4", keys=_exaone_keys, extra=lambda config: llama3_factors(config, default_factor=16.0))


def _hunyuan_keys(config: Config, keys: KeyWriter) -> None:
    """Its dynamic scaling is one change of the base (NTK-aware, by alpha)."""
    common_keys(config.without("num_experts"), keys)
    rope = config.inner("rope_parameters")
    if rope.get("rope_type") not in ("dynamic", "xdrope"):
        return
    alpha, base, width = rope.number("alpha", default=50), rope.number("rope_theta", default=1e4), config.head_width
    if width < 3 or alpha <= 0:
        raise ConvertError(f"{rope.where}: alpha {alpha} and heads of {width} give no base")
    keys.f32("rope.freq_base", base * alpha ** (width / (width - 2)))
    keys.string("rope.scaling.type", "none")
    keys.f32("rope.scaling.factor", 1)
    if rope["rope_type"] == "dynamic":  # config.json says 32k; the model was trained for 256k
        keys.u32("rope.scaling.original_context_length", 256 * 1024)
        keys.u32("context_length", 256 * 1024)


HUNYUAN = Recipe(
    "hunyuan-dense",
    rename=lambda config, name: None if name == "lm_head.weight" and config.get("tie_word_embeddings") else name,
    keys=_hunyuan_keys,
    vocabulary="hunyuan",
)


def _lfm2_prepare(config: Config, tensors: Tensors) -> Config:
    """Only layers of attention have key and value heads."""
    if config.get("full_attn_idxs") is not None:  # as older configurations have it
        full = set(config.list_of("full_attn_idxs", int))
        config = config.changed(layer_types=["attention" if k in full else "conv" for k in range(config.n_layers)])
    kinds = config.list_of("layer_types", str, config.n_layers)
    return config.changed(num_key_value_heads=[config.n_kv_heads if kind != "conv" else 0 for kind in kinds])


def _lfm2_keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.u32("vocab_size", config["vocab_size"])
    keys.u32("shortconv.l_cache", config["conv_L_cache"])
    keys.f32("attention.layer_norm_rms_epsilon", config["norm_eps"])
    width = config.integer("block_ff_dim", "intermediate_size")
    if config.get("block_auto_adjust_ff_dim"):
        width = 2 * width // 3
        if config.get("block_ffn_dim_multiplier") is not None:
            width = int(config.number("block_ffn_dim_multiplier") * width)
        width = -(width // -(step := config.integer("block_multiple_of", at_least=1))) * step
    keys.u32("feed_forward_length", width)


def _lfm2_moe_keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.u32("expert_feed_forward_length", config["moe_intermediate_size"])
    keys.u32("leading_dense_block_count", config["num_dense_layers"])
    keys.u32("expert_gating_func", SIGMOID)
    keys.u32("vocab_size", config["vocab_size"])
    keys.u32("shortconv.l_cache", config["conv_L_cache"])


def _lfm2_rewrite(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    if "conv.conv" in name:
        tensor.expect_axes(3)
        tensor = tensor.reshaped(tensor.shape[0], tensor.shape[2])
    if ".feed_forward.experts." in name:
        layer, part = layer_of(name), name.removesuffix(".weight").rpartition(".")[2]
        yield f"layers.{layer}.feed_forward.experts.{part}.weight", tensor
    elif name.endswith(".expert_bias"):
        yield f"{name}.bias", tensor
    else:
        yield name, tensor


LFM2 = Recipe("lfm2", prepare=_lfm2_prepare, rewrite=_lfm2_rewrite, keys=_lfm2_keys)
LFM2_MOE = replace(LFM2, arch="lfm2moe", keys=_lfm2_moe_keys, experts=("w1", "w2", "w3"))


def _minimax_keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.u32("expert_feed_forward_length", config["intermediate_size"])
    share = config.rope.number("partial_rotary_factor", default=1.0)
    keys.u32("rope.dimension_count", config.integer("rotary_dim", default=int(config.head_width * share)))


MINIMAX_M2 = Recipe("minimax-m2", keys=_minimax_keys, experts=("w1", "w2", "w3"))


def _nemotron_keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    rope = config.inner("rope_parameters")
    keys.u32("vocab_size", config["vocab_size"])
    keys.f32(
        "attention.layer_norm_epsilon",
        config.first("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
    )
    share = rope.number("partial_rotary_factor", default=0.5)
    keys.u32("rope.dimension_count", int(share * config.width) // config.n_heads)
    factor = config.get("factor") or rope.get("factor")
    keys.string("rope.scaling.type", "none" if factor is None else "linear")
    if factor is not None:
        keys.f32("rope.scaling.factor", factor)


def _nemotron_tokens(config: Config, keys: KeyWriter) -> None:
    keys.u32("tokenizer.ggml.padding_token_id", 0, full=True)
    keys.u32("tokenizer.ggml.unknown_token_id", 1, full=True)


NEMOTRON = Recipe(
    "nemotron",
    rewrite=shifted_norms,
    keys=_nemotron_keys,
    vocabulary="sentencepiece",
    vocabulary_keys=_nemotron_tokens,
)

RECIPES = {
    "ApertusForCausalLM": APERTUS,
    "Ernie4_5ForCausalLM": ERNIE,
    "Ernie4_5_ForCausalLM": ERNIE,
    "Ernie4_5_MoeForCausalLM": ERNIE_MOE,
    "Exaone4ForCausalLM": EXAONE4,
    "HunYuanDenseV1ForCausalLM": HUNYUAN,
    "Lfm2ForCausalLM": LFM2,
    "Lfm2MoeForCausalLM": LFM2_MOE,
    "MiniMaxM2ForCausalLM": MINIMAX_M2,
    "NemotronForCausalLM": NEMOTRON,
}
