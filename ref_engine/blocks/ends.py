"""Both ends of a model: from token ids into the residual stream, and from the stream to logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ref_engine.blocks.site import Pass, normalise
from ref_engine.ops import Ops
from ref_engine.reference.sums import F32
from ref_engine.spec import ModelSpec, NormSpec
from ref_engine.weights import Weights


def enter(ids: NDArray[np.int64], spec: ModelSpec, weights: Weights, p: Pass) -> F32:
    """Token ids (T,) -> the stream before the first layer (T, D)."""
    x = p.tap("embd", None, p.ops.embed(ids, weights["token_embd.weight"]))
    if spec.embedding_scale is not None:
        x = p.tap("inp_scaled", None, x * np.float32(spec.embedding_scale))
    if spec.position_embedding:
        x = p.tap("inpL", None, x + p.ops.embed(p.positions, weights["position_embd.weight"]))
    if spec.embedding_norm is not None:
        x = p.tap("inp_norm", None, _norm(x, spec.embedding_norm, weights, p.ops))
    return x


def leave(x: F32, spec: ModelSpec, weights: Weights, ops: Ops) -> F32:
    """The stream after the last layer, normalised: (T, D) -> (T, D)."""
    return x if spec.output_norm is None else _norm(x, spec.output_norm, weights, ops)


def output(x: F32, spec: ModelSpec, weights: Weights, ops: Ops) -> F32:
    """Normalised states to logits: (T, D) -> (T, V)."""
    bias = weights["output.bias"].f32() if "output.bias" in weights and spec.output_bias != "no" else None
    y = ops.linear(x, weights[spec.output], bias)
    if spec.logit_scale is not None:
        y = y * np.float32(spec.logit_scale)
    return y if spec.final_soft_cap is None else ops.soft_cap(y, spec.final_soft_cap)


def _norm(x: F32, norm: NormSpec, weights: Weights, ops: Ops) -> F32:
    names = (f"{norm.name}{norm.suffix}", f"{norm.name}.bias")
    weight, bias = (weights[name].f32() if name in weights else None for name in names)
    return normalise(x, norm, weight, bias, ops)
