"""Which type each tensor gets: the output type for matrices, float32 for what graphs take in no other.

Source: `ModelBase.prepare_tensors` of llama.cpp's conversion/base.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ref_engine.checkpoint import Tensor
from ref_engine.errors import GGUFError
from ref_engine.files.types import GGMLType, row_bytes


@dataclass(frozen=True)
class OutType:
    """file_type: the number of `general.file_type`; type: of the matrices."""

    name: str
    file_type: int
    type: GGMLType


OUT_TYPES: Final = MappingProxyType(
    {
        "f32": OutType("f32", 0, GGMLType.F32),
        "f16": OutType("f16", 1, GGMLType.F16),
        "bf16": OutType("bf16", 32, GGMLType.BF16),
        "q8_0": OutType("q8_0", 7, GGMLType.Q8_0),
        "tq1_0": OutType("tq1_0", 36, GGMLType.TQ1_0),
        "tq2_0": OutType("tq2_0", 37, GGMLType.TQ2_0),
    }
)
MXFP4_FILE = 38

# routers, positions, token types, short convolutions and what recurrences mix by
_ALWAYS_F32 = re.compile(
    r"(blk\.\d+\.)?(ffn_gate_inp|ffn_gate_inp_shexp|position_embd|token_types|ssm_conv1d|ssm_conv1d_[qkv]|shortconv\.conv"
    r"|time_mix_first|time_mix_w1|time_mix_w2|time_mix_decay_w1|time_mix_decay_w2|time_mix_lerp_fused|indexer\.proj)\.weight"
)
_F16_IN_TERNARY = ("token_embd.weight", "output.weight", "per_layer_token_embd.weight")


def guessed(tensors: Iterable[Tensor]) -> OutType:
    """bf16 where the first matrix of 16 bits is bfloat16, else f16. config.json is not asked: some lie."""
    for tensor in tensors:
        if len(tensor.shape) >= 2 and tensor.dtype in ("BF16", "F16"):
            return OUT_TYPES["bf16" if tensor.dtype == "BF16" else "f16"]
    return OUT_TYPES["f16"]


def type_of(name: str, tensor: Tensor, out: OutType) -> GGMLType:
    """name: in the GGUF file."""
    if tensor.packed is not None:
        return tensor.packed
    if len(tensor.shape) <= 1 or name.endswith("_norm.weight"):
        return GGMLType.F32
    if not name.endswith((".weight", ".lora_a", ".lora_b")) or _ALWAYS_F32.fullmatch(name):
        return GGMLType.F32
    if out.type in (GGMLType.TQ1_0, GGMLType.TQ2_0) and name in _F16_IN_TERNARY:
        return GGMLType.F16
    try:
        row_bytes(out.type, tensor.shape[-1])
    except GGUFError:  # a row is no whole number of blocks
        return GGMLType.F16
    return out.type
