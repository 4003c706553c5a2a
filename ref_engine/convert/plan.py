"""What a checkpoint becomes, before anything is written: metadata, and each tensor with its type and origin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from ref_engine.archs import FAMILIES, read_spec
from ref_engine.archs.hf import RECIPES, KeyWriter, Recipe, layer_of, normalised, stack_experts
from ref_engine.checkpoint import Config, Tensor, open_checkpoint, read_config, read_json
from ref_engine.checkpoint.dequantize import dequantized
from ref_engine.convert.describe import write_description
from ref_engine.convert.modules import read_pooling
from ref_engine.convert.outtype import MXFP4_FILE, OUT_TYPES, OutType, guessed, type_of
from ref_engine.convert.vocab import write_vocabulary
from ref_engine.errors import ConvertError, ModelError
from ref_engine.files.cursor import show
from ref_engine.files.types import GGMLType, ValueType, row_bytes
from ref_engine.model import check_tensors
from ref_engine.weights import Weight, Weights

_MOST_LAYERS = 512
_NOT_WEIGHTS = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")
# parts of models that also see and hear; a GGUF file of a text model is without them
_OTHER_SENSES = ("visual.", "vision.", "vision_", "audio.", "audio_", "projector.", "image_newline", "patch_embed",
                 "patch_merger.", "model.connector.")  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """One tensor of the new file. shape is in NumPy order."""

    name: str
    type: GGMLType
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def n_weights(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        columns = self.shape[-1] if self.shape else 1
        return math.prod(self.shape[:-1]) * row_bytes(self.type, columns)


@dataclass(frozen=True)
class Plan:
    """A whole conversion.

    architecture: of config.json; out: the type of its matrices
    left_out:     tensors of the checkpoint that no text model has
    cannot_run:   why this version cannot run the file, if so
    """

    architecture: str
    out: OutType
    metadata: Mapping[str, Any]
    types: Mapping[str, ValueType]
    tensors: Sequence[Planned]
    left_out: Sequence[str]
    cannot_run: str | None


def plan_conversion(folder: Path, outtype: str = "auto", *, pre: str | None = None, name: str | None = None) -> Plan:
    """outtype: of `OUT_TYPES`, or "auto": 16 bits as the checkpoint has them.

    pre: name of a pre-tokenizer that is not recognised; name: of the model. Raises ConvertError, naming the file, key
    or tensor at fault, and GGUFError for metadata that a file cannot hold.
    """
    raw = read_config(folder)
    architecture = architecture_of(raw)
    if architecture not in RECIPES:
        raise ConvertError(f"{raw.where}: architecture {show(architecture)} has no recipe (docs/convert.md lists them)")
    recipe = RECIPES[architecture]
    checkpoint = open_checkpoint(folder)
    tensors = {_plain_name(key): tensor for key, tensor in checkpoint.items() if not _is_left_out(key)}
    out = guessed(tensors.values()) if outtype == "auto" else OUT_TYPES[outtype]
    config = normalised(raw)
    if config.n_layers > _MOST_LAYERS:
        raise ConvertError(f"{raw.where}: {config.n_layers} layers are more than {_MOST_LAYERS}")
    tensors = dict(dequantized(config, tensors))
    if (pooling := read_pooling(folder)) is not None:
        config = config.changed(pooling=pooling)
    config = recipe.prepare(config, tensors)
    planned = [Planned(new, type_of(new, tensor, out), tensor) for new, tensor in _mapped(config, recipe, tensors)]
    keys = KeyWriter(recipe.arch, _file_type(config, out))
    keys.string("general.architecture", recipe.arch, full=True)
    shapes = {p.name: p.shape for p in planned}
    write_description(folder, shapes, _generation(folder), keys, name)
    recipe.keys(config, keys)
    keys.u32("general.quantization_version", 2, full=True)
    write_vocabulary(folder, config, recipe, keys, pre)
    cannot_run = _checked(keys, planned)
    left_out = sorted(key for key in checkpoint if _is_left_out(key))
    return Plan(architecture, out, keys.values, keys.types, planned, left_out, cannot_run)


def architecture_of(config: Config) -> str:
    """The name that says how the model is built; of the text model, where there is one inside."""
    for found in (config.inner("text_config"), config):
        if found.get("architectures"):
            return str(found.list_of("architectures", str)[0])
    raise ConvertError(f"{config.where}: architectures is missing")


def _is_left_out(name: str) -> bool:
    return name.endswith(_NOT_WEIGHTS) or any(part in name for part in _OTHER_SENSES)


def _plain_name(name: str) -> str:
    name = name.replace("language_model.", "")
    return name.removesuffix("_bias") + ".bias" if name.endswith("e_score_correction_bias") else name


def _file_type(config: Config, out: OutType) -> int:
    packed = config.inner("quantization_config").get("quant_method") == "mxfp4"
    return MXFP4_FILE if packed and out.name in ("f32", "f16", "bf16") else out.file_type


def _generation(folder: Path) -> Config:
    path = folder / "generation_config.json"
    return Config(read_json(path), path.name) if path.is_file() else Config({}, path.name)


def _mapped(config: Config, recipe: Recipe, tensors: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """The file's tensors by their names there."""
    layers = recipe.layers(config)
    names = gguf.get_tensor_name_map(_architectures()[recipe.arch], layers)
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if (new := recipe.rename(config, name)) is not None:
            if new in renamed:
                raise ConvertError(f"tensors {renamed[new].name} and {tensor.name} are both {new}")
            renamed[new] = tensor
    n_experts = config.first("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    n_experts = n_experts if isinstance(n_experts, int) else None
    gathered = stack_experts(recipe.gather(config, renamed), recipe.experts, n_experts)
    made: dict[str, Tensor] = dict(recipe.extra(config))
    for name, tensor in gathered.items():
        for part, changed in recipe.rewrite(config, name, tensor):
            new = names.get_name(part, try_suffixes=(".weight", ".bias"))
            if new is None:
                layer = layer_of(part)
                beyond = "" if layer is None or layer < layers else f" (config.json has {layers} layers)"
                raise ConvertError(f"tensor {show(tensor.name)} is not known for architecture {recipe.arch}{beyond}")
            if new in made:
                raise ConvertError(f"tensors {made[new].name} and {tensor.name} both become {new}")
            made[new] = changed
    return made.items()


def _architectures() -> dict[str, Any]:
    return {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}


def _checked(keys: KeyWriter, planned: Sequence[Planned]) -> str | None:
    """Hold the plan to what the family's graph asks for; returns why it cannot be run where no graph is known."""
    if keys.arch not in FAMILIES:
        return f"architecture {keys.arch!r} cannot be run by this version"
    weights = Weights({p.name: Weight(p.name, p.type, p.shape, np.empty(0, np.uint8)) for p in planned})
    try:
        check_tensors(read_spec(keys.values, {p.name: p.shape for p in planned}), weights)
    except ModelError as error:
        raise ConvertError(f"the checkpoint does not make a model: {error}") from error
    return None
