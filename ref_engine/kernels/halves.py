"""Half a layer in one compiled call: for which layers there is one, and what it is given.

The bits are those of the composition in `blocks/`, which runs where these give None: for features and weight types
that the kernels do not know, and whenever somebody looks inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ref_engine.compat import native
from ref_engine.kernels.ops import Kernels, as_f32, has_kernel
from ref_engine.ops import KeysAndValues
from ref_engine.quant.rows import cache_type
from ref_engine.reference import ffn
from ref_engine.reference.sums import F32
from ref_engine.spec import AttentionSpec, FfnSpec, LayerSpec, NormSpec
from ref_engine.weights import LayerTensors

_MOST_HEAD = 1024  # numbers in a key, as in c/table.h
_Compiled = TypeVar("_Compiled")


@dataclass(frozen=True)
class Halves:
    """Both halves over the kernels of one instruction set."""

    kernels: Kernels

    def attention(
        self, x: F32, layer: LayerSpec, tensors: LayerTensors, turn: tuple[F32, F32] | None,
        sequences: Sequence[KeysAndValues],
    ) -> F32 | None:  # fmt: skip
        """See `Ops.attention_half`."""
        half = self.attention_of(layer, tensors)
        if half is None:
            return None
        cos, sin = (None, None) if turn is None else turn
        runs = [(positions, cache_type(k), k.view(np.uint8), v.view(np.uint8)) for positions, k, v in sequences]
        out: F32 = np.empty(x.shape, np.float32)
        half.run(self.kernels.table, as_f32(x), cos, sin, runs, out, self.kernels.n_threads)
        return out

    def ffn(self, x: F32, layer: LayerSpec, tensors: LayerTensors) -> F32 | None:
        """See `Ops.ffn_half`."""
        half = self.ffn_of(layer, tensors)
        if half is None:
            return None
        out: F32 = np.empty(x.shape, np.float32)
        half.run(self.kernels.table, as_f32(x), out, self.kernels.n_threads)
        return out

    def attention_of(self, layer: LayerSpec, tensors: LayerTensors) -> native.AttentionHalf | None:
        return kept("attention half", layer, tensors, self._attention)

    def ffn_of(self, layer: LayerSpec, tensors: LayerTensors) -> native.FfnHalf | None:
        return kept("ffn half", layer, tensors, self._ffn)

    def _attention(self, layer: LayerSpec, tensors: LayerTensors) -> native.AttentionHalf | None:
        a = layer.mixer
        if not isinstance(a, AttentionSpec) or not plain_attention(a) or layer.normed_residual is not None:
            return None
        names = ("attn_q", "attn_k", "attn_v", "attn_output")
        norms = (layer.mixer_norm, layer.mixer_post_norm, a.q_norm, a.k_norm)
        if not all(has_map(tensors, name) for name in names) or not all(has_norm(tensors, norm) for norm in norms):
            return None
        q, k, v, output = (self.map(tensors, name) for name in names)
        return native.AttentionHalf(
            q,
            k,
            v,
            output,
            a.n_head,
            a.n_head_kv,
            laid(tensors, a.q_norm),
            laid(tensors, a.k_norm),
            0 if a.rope is None else a.rope.n_rot // 2,
            a.rope is not None and a.rope.pairing == "adjacent",
            a.scale if a.scale_queries else 1.0,
            1.0 if a.scale_queries else a.scale,
            a.window or 0,
            a.soft_cap or 0.0,
            1 / a.soft_cap if a.soft_cap else 0.0,
            tensors.vector("attn_sinks.weight"),
            laid(tensors, layer.mixer_norm),
            laid(tensors, layer.mixer_post_norm),
            layer.residual_scale,
        )

    def _ffn(self, layer: LayerSpec, tensors: LayerTensors) -> native.FfnHalf | None:
        f = layer.ffn
        if not isinstance(f, FfnSpec) or layer.normed_residual is not None:
            return None
        names = [f.up, f.down] if f.fused or not f.gated else [f.up, f.gate, f.down]
        known = native.GLU_KINDS if f.gated else native.ACTIVATION_KINDS
        norms = (layer.ffn_norm, layer.ffn_post_norm)
        if f.activation not in known or (f.fused and (f.width % 16 or not f.gated)) or "ffn.act.scales" in tensors:
            return None
        if not all(has_map(tensors, name) for name in names) or not all(has_norm(tensors, norm) for norm in norms):
            return None
        return native.FfnHalf(
            self.map(tensors, f.up),
            self.map(tensors, f.gate) if len(names) == 3 else None,
            self.map(tensors, f.down),
            f.activation,
            f.constants if f.gated and f.activation in ffn.UNITS else (),
            f.gated,
            laid(tensors, layer.ffn_norm),
            laid(tensors, layer.ffn_post_norm),
            layer.residual_scale,
        )

    def map(self, tensors: LayerTensors, name: str) -> native.Map:
        weight, bias, _ = tensors.map(name)
        bias = None if bias is None else as_f32(bias)
        if weight.is_plain:
            rows, columns = weight.shape
            return native.Map((weight.type.name, weight.data, rows, columns), bias)
        return native.Map(self.kernels.packed(weight), bias)


def kept(
    name: str, layer: LayerSpec, tensors: LayerTensors, make: Callable[[LayerSpec, LayerTensors], _Compiled | None]
) -> _Compiled | None:
    """What `make` gives for a layer, made once. Several layers may have the same tensors, so each has its own."""
    key = (name, id(layer))
    if key not in tensors.kept:
        tensors.kept[key] = layer, make(layer, tensors)  # the layer too: nobody else may get its id
    found: _Compiled | None = tensors.kept[key][1]
    return found


def plain_attention(a: AttentionSpec) -> bool:
    """Whether it has nothing that the compiled half does not know."""
    known = (
        not a.fused and a.chunk is None and a.causal and not a.alibi and not a.clamp and not a.norm_after_rope
        and a.gate == "no" and a.temperature is None and not a.split_bias and a.index is None
        and a.output_scale is None and a.head_dim <= _MOST_HEAD
    )  # fmt: skip
    return known and (a.norm_over == "head" or (a.q_norm is None and a.k_norm is None))


def has_map(tensors: LayerTensors, name: str) -> bool:
    """Whether there is a kernel for this map: a matrix of a known type, whose result no factor changes."""
    weight, _, scale = tensors.map(name)
    return scale is None and has_kernel(weight.type) and len(weight.shape) == 2 and not weight.bounded


def has_norm(tensors: LayerTensors, norm: NormSpec | None) -> bool:
    return norm is None or (norm.kind == "rms" and f"{norm.name}.bias" not in tensors)


def laid(tensors: LayerTensors, norm: NormSpec | None) -> tuple[F32 | None, float] | None:
    """A norm's weight and its eps."""
    if norm is None:
        return None
    weight = tensors.vector(f"{norm.name}{norm.suffix}")
    return None if weight is None else as_f32(weight), norm.eps
