"""A model as features: what there is, how wide, and which variants, without the names of families.

`archs/` turns a file's metadata into a ModelSpec; the wiring in `blocks/` and `model.py` reads nothing else. Every part
of a layer is a frozen value that also says which tensors it needs (`rules`) and what it remembers (`memory`).
"""

from ref_engine.spec.attention import AttentionSpec, Temperature
from ref_engine.spec.compressed import CompressedAttentionSpec, CompressorSpec, GroupIndexSpec
from ref_engine.spec.deltanet import DeltaNetSpec
from ref_engine.spec.depth import DepthSpec
from ref_engine.spec.ffn import ActivationSpec, FfnSpec
from ref_engine.spec.hyper import HyperSpec, StreamsSpec
from ref_engine.spec.hyper_gated import GatedHyperSpec
from ref_engine.spec.indexer import BlockIndexSpec, IndexerSpec, MeanIndexSpec, PoolIndexSpec
from ref_engine.spec.kda import KdaSpec
from ref_engine.spec.latent import LatentAttentionSpec
from ref_engine.spec.layer import LayerSpec
from ref_engine.spec.lightning import LightningSpec
from ref_engine.spec.mamba import Mamba2Spec, MambaSpec
from ref_engine.spec.model import ModelSpec, tensor_rules
from ref_engine.spec.moe import ChunkSpec, LatentSpec, MoeSpec, RoutingSpec
from ref_engine.spec.ngram import NgramSpec
from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Part, Rules, TensorRule
from ref_engine.spec.rope import Pairing, RopeSpec
from ref_engine.spec.shortconv import ShortConvSpec
from ref_engine.spec.sum import SumSpec

__all__ = [
    "ActivationSpec",
    "AttentionSpec",
    "BlockIndexSpec",
    "ChunkSpec",
    "CompressedAttentionSpec",
    "CompressorSpec",
    "DeltaNetSpec",
    "DepthSpec",
    "FfnSpec",
    "GatedHyperSpec",
    "GroupIndexSpec",
    "HyperSpec",
    "IndexerSpec",
    "KdaSpec",
    "LatentAttentionSpec",
    "LatentSpec",
    "LayerSpec",
    "LightningSpec",
    "Mamba2Spec",
    "MambaSpec",
    "MeanIndexSpec",
    "Memory",
    "ModelSpec",
    "MoeSpec",
    "NgramSpec",
    "NormSpec",
    "Pairing",
    "Part",
    "PoolIndexSpec",
    "RopeSpec",
    "RoutingSpec",
    "Rules",
    "ShortConvSpec",
    "StreamsSpec",
    "SumSpec",
    "Temperature",
    "TensorRule",
    "tensor_rules",
]
