"""Architecture families: metadata in, ModelSpec out. The names of families live in this folder and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ref_engine.archs import (
    bailingmoe3,
    deepseek2,
    deepseek32,
    dots3note,
    falcon_h1,
    gemma3,
    kimi_linear,
    lfm2,
    llama,
    mamba,
    minicpm3,
    minimax_01,
    minimax_m3,
    plamo2,
)
from ref_engine.archs.keys import Keys
from ref_engine.errors import ModelError
from ref_engine.spec import ModelSpec

FAMILIES: dict[str, Callable[[Keys], ModelSpec]] = {
    "bailingmoe3": bailingmoe3.spec,
    "deepseek2": deepseek2.deepseek2,
    "deepseek32": deepseek32.deepseek32,
    "dots3note": dots3note.spec,
    "falcon-h1": falcon_h1.spec,
    "gemma3": gemma3.spec,
    "glm-dsa": deepseek32.glm_dsa,
    "kimi-linear": kimi_linear.spec,
    "lfm2": lfm2.spec,
    "lfm2moe": lfm2.spec_moe,
    "llama": llama.spec,
    "mamba": mamba.spec,
    "mamba2": mamba.spec2,
    "minicpm3": minicpm3.spec,
    "minimax-01": minimax_01.spec,
    "minimax-m3": minimax_m3.spec,
    "mistral4": deepseek2.mistral4,
    "plamo2": plamo2.spec,
}


def read_spec(metadata: Mapping[str, object], tensors: Collection[str], n_ctx: int | None = None) -> ModelSpec:
    """The ModelSpec that a file's metadata describe.

    tensors: the names in the file (some features show only there); n_ctx: context length to run at, None for the
    family's default. Raises ModelError, naming the key, for an unknown architecture or a missing or impossible value.
    """
    arch = metadata.get("general.architecture")
    if not isinstance(arch, str):
        raise ModelError("general.architecture is missing: this file does not describe a model")
    if arch not in FAMILIES:
        raise ModelError(f"architecture {arch!r} is not supported (supported: {', '.join(sorted(FAMILIES))})")
    return FAMILIES[arch](Keys(metadata, arch, tensors, n_ctx))
