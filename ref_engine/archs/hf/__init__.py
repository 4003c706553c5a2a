"""Recipes that turn a Hugging Face checkpoint into a GGUF file, by the name that its config.json gives."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ref_engine.archs.hf import (
    bert,
    cohere,
    deepseek,
    gemma,
    glm,
    gpt,
    gpt_oss,
    granite,
    llama,
    mamba,
    olmo,
    others,
    phi,
    qwen,
    qwen_linear,
)
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.normal import normalised
from ref_engine.archs.hf.recipe import Recipe, layer_of, stack_experts

_FAMILIES = (
    llama, qwen, qwen_linear, gemma, phi, olmo, gpt, gpt_oss, cohere, deepseek, glm, granite, mamba, others, bert,
)  # fmt: skip

RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {name: recipe for family in _FAMILIES for name, recipe in sorted(family.RECIPES.items())}
)
"""The first of `architectures` in config.json -> its recipe."""

__all__ = ["RECIPES", "KeyWriter", "Recipe", "layer_of", "normalised", "stack_experts"]
