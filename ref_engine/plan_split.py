"""What a device and what the host need of a plan, when a model is divided between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ref_engine.files.header import TensorInfo
from ref_engine.place import Placement, Where
from ref_engine.plan import Plan, full_cache, layer_of
from ref_engine.quant.rows import CacheType


@dataclass(frozen=True)
class Share:
    """Bytes: weights as the file has them, a full KV cache by the type of its numbers, recurrent states."""

    weights: int
    cache: Mapping[CacheType, int]
    state: int


@dataclass(frozen=True)
class Division:
    """n_layer: layers that plain decoding runs; the output is one more. gpu_layers: those of them on the device."""

    n_layer: int
    gpu_layers: int
    device: Share
    host: Share


def divide(
    plan: Plan, tensors: Mapping[str, TensorInfo], gpu_layers: int | None = None, experts_on: Where = "gpu"
) -> Division:
    """How `ref_engine.load` divides a model for these options. gpu_layers None: all.

    A tied embedding counts twice: the host looks tokens up in it, the device makes logits with it.
    """
    ahead = {layer_of(name) for name in tensors if ".nextn." in name}  # layers that plain decoding leaves out
    n_layer = 1 + max((layer.index for layer in plan.layers if layer.index not in ahead), default=-1)
    given = n_layer + 1 if gpu_layers is None else min(gpu_layers, n_layer + 1)
    placement = Placement.of(n_layer, given, experts_on)
    tied = "output.weight" not in tensors and "token_embd.weight" in tensors
    there = {name for name in tensors if given and layer_of(name) not in ahead and placement.on_device(name)}
    there |= {"token_embd.weight"} if tied and given else set()
    layers_there = {layer.index for layer in plan.layers if given and placement.first <= layer.index < n_layer}

    def share(names: set[str], on_device: bool) -> Share:
        layers = [layer for layer in plan.layers if (layer.index in layers_there) == on_device]
        return Share(
            sum(tensors[name].nbytes for name in names),
            full_cache(layers, plan.n_ctx),
            sum(layer.state for layer in layers),
        )

    stay = (set(tensors) - there) | ({"token_embd.weight"} if tied else set())
    return Division(n_layer, given, share(there, True), share(stay, False))
