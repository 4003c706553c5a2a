"""How models of the built-in catalog are best run, where their files do not say it.

Other models bring this along in their manifest (Ollama's Modelfile); wheels on a package index have no place for it.
A model is known by its content, so the preset is the same whether it is run by name or by path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType


@dataclass(frozen=True)
class Preset:
    """Sampling parameters by name, and a system prompt: None leaves it to the template, "" is an empty one."""

    parameters: Mapping[str, object]
    system: str | None = None


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # Temperature and top_p from the model's card. The system prompt that the template puts in throws this small
        # model off once it is rounded to 4 bits: asked for the capital of France it then answers "L'Étoile, la Cité,
        # la Nation", in llama.cpp too; with an empty one it answers "The capital of France is Paris."
        "smollm2:135m": Preset(MappingProxyType({"temperature": 0.2, "top_p": 0.9}), system=""),
    }
)


def preset_of(path: Path) -> Preset | None:
    """The preset of a catalog model's file; None for any other file. Reads the file only if its size is right."""
    from ref_engine.library import CATALOG
    from ref_engine.library.atomic import file_sha256

    size = path.stat().st_size
    candidates = [model for model in CATALOG if model.name in PRESETS and model.size == size]
    if not candidates:
        return None
    # the store names a file after the hash that it was checked against
    sha256 = path.name.removeprefix("sha256-") if path.name.startswith("sha256-") else file_sha256(path)
    return next((PRESETS[model.name] for model in candidates if model.sha256 == sha256), None)
