"""general.*: name, size, author, licence and sampling defaults, from the directory's name, README.md and the configs.

The `gguf` package reads model cards and takes names apart; nothing here does it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from ref_engine.archs.hf import KeyWriter
from ref_engine.checkpoint import Config
from ref_engine.errors import ConvertError
from ref_engine.files.cursor import show_path
from ref_engine.files.types import ArrayType, GGUFValueType, ValueType


def write_description(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], generation: Config, keys: KeyWriter, name: str | None = None
) -> None:
    """shapes: of the file's tensors by name. Raises ConvertError where a file beside the weights cannot be read."""
    total, shared, expert, n_experts = count_weights(shapes)
    try:
        found = gguf.Metadata.load(None, folder, name, total)
        if found.sampling_penalty_repeat is None:
            found.sampling_penalty_repeat = generation.get("repetition_penalty")
        if found.name is None:
            found.name = folder.resolve().name
        if found.size_label is None and total > 0:
            found.size_label = gguf.size_label(total, shared, expert, n_experts)
        writer = gguf.GGUFWriter(None, keys.arch)
        writer.add_type(gguf.GGUFType.MODEL)
        found.set_gguf_meta_model(writer)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        problem = f"README.md or another description cannot be used: {type(error).__name__}: {error}"
        raise ConvertError(f"{show_path(folder)}: {problem}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "yaml":
            raise
        problem = " ".join(str(error).split())
        raise ConvertError(f"{show_path(folder / 'README.md')}: its header is not YAML: {problem}") from error
    for key, value in writer.kv_data[0].items():
        keys.values[key], keys.types[key] = value.value, _type(value)


def _type(value: Any) -> ValueType:
    kind = GGUFValueType(int(value.type))
    if kind is not GGUFValueType.ARRAY:
        return kind
    item = value.value[0]
    if isinstance(item, str | bytes):
        return ArrayType(GGUFValueType.STRING)
    return ArrayType(GGUFValueType.FLOAT32 if isinstance(item, float) else GGUFValueType.INT32)


def count_weights(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int, int]:
    """All weights, those that every token uses, those of one expert, and the experts of a layer.

    Source: `GGUFWriter.get_total_parameter_count` of gguf-py.
    """
    total = shared = expert = n_experts = n_stacks = 0
    for name, shape in shapes.items():
        n = math.prod(shape)
        total += n
        if "_exps." in name and len(shape) >= 3:
            experts = shape[-2 if ".bias" in name else -3]
            expert, n_experts, n_stacks = expert + n // max(experts, 1), n_experts + experts, n_stacks + 1
        else:
            shared += n
    return total, shared, expert, n_experts // n_stacks if n_stacks else 0
