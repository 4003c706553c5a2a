"""What turns a checkpoint of one architecture into a GGUF file: keys from its configuration, tensors from its tensors.

Sources: llama.cpp's `conversion/` says which keys and tensors a family's graph expects, transformers' modelling files
say what the checkpoint's tensors are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ref_engine.archs.hf.common import common_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.checkpoint import Array, Config, Tensor, stacked
from ref_engine.errors import ConvertError

Named = tuple[str, Tensor]
Tensors = Mapping[str, Tensor]
Vocabulary = Literal[
    "byte-level",  # tokenizer.json, or vocab.json and merges.txt, of a byte-level BPE
    "sentencepiece",  # tokenizer.model
    "sentencepiece or byte-level",
    "byte-level or sentencepiece",
    "sentencepiece or fallback",  # or a tokenizer.json whose BPE falls back to bytes, without a prefixed space
    "llama",  # tokenizer.model, a tokenizer.json whose BPE falls back to bytes, or a byte-level one
    "gemma3",  # as "sentencepiece or byte-level"; the first without a prefixed space
    "phi3",  # as "sentencepiece", and added tokens of tokenizer.json
    "wordpiece",
    "chatglm",  # byte-level; these three find special tokens by their text
    "glm4",
    "glm4moe",
    "hunyuan",  # byte-level, with the ends of generation_config.json
]


@dataclass(frozen=True)
class Recipe:
    """How one architecture is converted. The steps, in this order:

    prepare:    corrects the configuration, also by what the tensors are
    layers:     how many layers the tensor-name map has to know
    rename:     a tensor's name as the map knows it, None for a tensor that is left out
    gather:     tensors made of several, such as packed blocks and their scales
    experts:    parts of one numbered expert, in the order in which their stacks are written
    rewrite:    what one tensor becomes, by names of the checkpoint or of GGUF
    extra:      tensors that the configuration gives; they come first
    keys:       the keys of the GGUF family `arch`
    vocabulary: how the tokenizer is read; vocabulary_keys: keys beyond it
    """

    arch: str
    prepare: Callable[[Config, Tensors], Config] = lambda config, tensors: config
    layers: Callable[[Config], int] = lambda config: config.n_layers
    rename: Callable[[Config, str], str | None] = lambda config, name: name
    gather: Callable[[Config, Tensors], Tensors] = lambda config, tensors: tensors
    experts: Sequence[str] = ("down_proj", "gate_proj", "up_proj")
    rewrite: Callable[[Config, str, Tensor], Iterable[Named]] = lambda config, name, tensor: [(name, tensor)]
    extra: Callable[[Config], Iterable[Named]] = lambda config: ()
    keys: Callable[[Config, KeyWriter], None] = common_keys
    vocabulary: Vocabulary = "byte-level"
    vocabulary_keys: Callable[[Config, KeyWriter], None] = lambda config, keys: None


def layer_of(name: str) -> int | None:
    """The first number in a tensor's name, which is its layer."""
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(found[1]) if found else None


def minus_exp(x: Array) -> Array:
    """A of its kept logarithm, rounded once. torch's float32 exp is off by a last bit for one value in a hundred."""
    return -np.exp(x.astype(np.float64)).astype(x.dtype)


def stack_experts(tensors: Tensors, parts: Sequence[str], n_experts: int | None) -> dict[str, Tensor]:
    """PREFIX.experts.0.PART.weight, PREFIX.experts.1.PART.weight, ... become one PREFIX.experts.PART.weight.

    The stacks stand where the last expert of their layer stood. Raises ConvertError where an expert is missing.
    """
    pattern = re.compile(rf"(.*\.experts)\.(\d{{1,6}})\.({'|'.join(parts)})\.weight")
    groups: dict[str, dict[tuple[int, str], Tensor]] = {}
    last: dict[str, str] = {}
    for name, tensor in tensors.items():
        if found := pattern.fullmatch(name):
            groups.setdefault(found[1], {})[int(found[2]), found[3]] = tensor
            last[found[1]] = name
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = pattern.fullmatch(name)
        if found is None:
            made[name] = tensor
        elif last[found[1]] == name:
            group = groups[found[1]]
            n = n_experts if n_experts is not None else 1 + max(expert for expert, _ in group)
            wanted = {(expert, part) for expert in range(n) for part in parts}
            for expert, part in sorted(wanted - set(group)) + sorted(set(group) - wanted):
                is_there = (expert, part) in group
                problem = f"one of more than the {n} experts of config.json" if is_there else "missing"
                raise ConvertError(f"tensor {found[1]}.{expert}.{part}.weight is {problem}")
            made |= {f"{found[1]}.{part}.weight": stacked([group[e, part] for e in range(n)]) for part in parts}
    return made
