"""The small models of golden data: files whose weights are a pure function of a specification and a seed.

golden/make/zoo_gguf.py says the rule and writes the same files with the gguf package; tests hold this to it. A
specification is {"kv": [[key, types, value]...], "tensors": [[name, GGUF dimensions, dtype]...], "seed": N}.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.files.types import ArrayType, GGMLType, GGUFValueType, ValueType
from ref_engine.files.writer import write_gguf

_PEAKED = re.compile(r"attn_(q|k|qkv|q_a|q_b|kv_a_mqa|k_b|kv_b|output|out)\.weight|ffn_gate_inp\.weight")


def build_model(spec: Mapping[str, Any], path: Path) -> None:
    """Write the GGUF file that a specification describes."""
    metadata = {key: value for key, _, value in spec["kv"]}
    types = {key: _value_type(names) for key, names, _ in spec["kv"]}
    tensors = [
        (name, tuple(reversed(ne)), GGMLType[dtype], _bytes(drawn(name, ne, spec["seed"]), dtype))
        for name, ne, dtype in spec["tensors"]
    ]
    write_gguf(path, metadata, tensors, types=types)


def _value_type(names: Sequence[str]) -> ValueType:
    item = GGUFValueType[names[-1]]
    return item if len(names) == 1 else ArrayType(item)


def _bytes(values: NDArray[np.float64], dtype: str) -> NDArray[np.uint8]:
    plain = {"F32": "<f4", "F16": "<f2"}[dtype]
    return np.ascontiguousarray(values.astype(plain)).reshape(-1).view(np.uint8)


def drawn(name: str, ne: Sequence[int], seed: int) -> NDArray[np.float64]:
    """The values of a tensor; NumPy guarantees that this generator's stream never changes."""
    state = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))
    x: NDArray[np.float64] = state.standard_normal(math.prod(ne))
    if "ssm_a" in name:
        return -np.abs(x) * 0.5 - 0.05
    if name.startswith(("rope_freqs", "rope_factors")):
        return 1 + np.abs(x)
    if sum(d > 1 for d in ne) <= 1:
        return 1 + 0.1 * x if "norm" in name and name.endswith("weight") else 0.1 * x
    if name.startswith("token_embd"):
        return 0.5 * x
    x = x / math.sqrt(ne[0])
    return 2.5 * x if _PEAKED.search(name) else x
