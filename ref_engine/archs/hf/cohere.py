"""Command R and Command R 7B.

Sources: llama.cpp's conversion/command_r.py, transformers' modeling_cohere.py and modeling_cohere2.py.
"""

from __future__ import annotations

from ref_engine.archs.hf.common import common_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.recipe import Recipe, Tensors
from ref_engine.checkpoint import Config


def _longer(config: Config, tensors: Tensors) -> Config:
    """model_max_length is what the model was trained for; max_position_embeddings is shorter."""
    return config.changed(max_position_embeddings=config.integer("model_max_length", "max_position_embeddings"))


def _keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.f32("logit_scale", config["logit_scale"])
    keys.string("rope.scaling.type", "none")


def _keys2(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.f32("logit_scale", config["logit_scale"])
    keys.u32("attention.sliding_window", config["sliding_window"])
    keys.u32("vocab_size", config["vocab_size"])
    share = config.number("rotary_pct", default=1.0)
    keys.u32("rope.dimension_count", int(share * (config.width // config.n_heads)))
    keys.string("rope.scaling.type", "none")


RECIPES = {
    "CohereForCausalLM": Recipe("command-r", prepare=_longer, keys=_keys),
    "Cohere2ForCausalLM": Recipe("cohere2", keys=_keys2),
}
