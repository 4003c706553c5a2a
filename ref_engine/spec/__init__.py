"""A model as features: what there is, how wide, and which variants, without the names of families.

`archs/` turns a file's metadata into a ModelSpec; the wiring in `blocks/` and `model.py` reads nothing else. Every part
of a layer is a frozen value that also says which tensors it needs (`rules`) and what it remembers (`memory`).
"""

from ref_engine.spec.attention import AttentionSpec
from ref_engine.spec.ffn import FfnSpec
from ref_engine.spec.layer import LayerSpec
from ref_engine.spec.model import ModelSpec, tensor_rules
from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Part, Rules, TensorRule
from ref_engine.spec.rope import Pairing, RopeSpec

__all__ = [
    "AttentionSpec",
    "FfnSpec",
    "LayerSpec",
    "Memory",
    "ModelSpec",
    "NormSpec",
    "Pairing",
    "Part",
    "RopeSpec",
    "Rules",
    "TensorRule",
    "tensor_rules",
]
