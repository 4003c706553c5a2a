"""Both ends of a model: from token ids into the residual stream, and from the stream to logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ref_engine.blocks.hyper import merged
from ref_engine.blocks.site import LayerTap, Pass, model_norm, stream_after
from ref_engine.errors import ContextFull
from ref_engine.ops import Ops
from ref_engine.place import joined
from ref_engine.reference.hyper import copied
from ref_engine.reference.sums import F32
from ref_engine.spec import ModelSpec
from ref_engine.weights import Weights


def enter(ids: NDArray[np.int64], spec: ModelSpec, weights: Weights, p: Pass) -> F32:
    """Token ids (T,) -> the stream before the first layer (T, D), or (T, N, D) where there are N of them."""
    x = p.tap("embd", None, p.ops.embed(ids, weights[spec.embedding]))
    if spec.embedding_scale is not None:
        x = p.tap("inp_scaled", None, x * np.float32(spec.embedding_scale))
    if spec.position_embedding:
        known = weights["position_embd.weight"]
        if p.positions.max() >= known.shape[0]:
            raise ContextFull(f"position {p.positions.max()} has no row in {known.name}, which has {known.shape[0]}")
        x = p.tap("inpL", None, x + p.ops.embed(p.positions, known))
    if spec.embedding_norm is not None:
        x = p.tap("inp_norm", None, model_norm(x, spec.embedding_norm, weights, p.ops))
    if spec.streams is not None:
        x = p.tap("hc_init", None, copied(x, spec.streams.n))
    p.kept[stream_after(-1)] = x
    return x


def leave(x: F32, spec: ModelSpec, weights: Weights, ops: Ops, tap: LayerTap) -> F32:
    """The stream after the last layer, or several made one, normalised: (T, D) or (T, N, D) -> (T, D)."""
    if spec.streams is not None:
        x = merged(x, spec.streams, weights, ops, tap)
    return x if spec.output_norm is None else model_norm(x, spec.output_norm, weights, ops)


def output(x: F32, spec: ModelSpec, weights: Weights, ops: Ops) -> F32:
    """Normalised states to logits: (T, D) -> (T, V)."""
    bias = weights["output.bias"].f32() if "output.bias" in weights and spec.output_bias != "no" else None
    y = ops.linear(x, weights[spec.output], bias)
    if spec.logit_scale is not None:
        y = y * np.float32(spec.logit_scale)
    if spec.final_soft_cap is not None:
        y = ops.soft_cap(y, spec.final_soft_cap)
    if spec.n_output is None:
        return y
    never = np.zeros((y.shape[0], spec.n_vocab - spec.n_output), np.float32, like=y) - np.float32(np.inf)
    return joined(never, y)
