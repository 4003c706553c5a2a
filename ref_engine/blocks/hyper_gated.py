"""What halves of layers read of several residual streams by a gate for each feature."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.site import Site
from ref_engine.ops import Ops
from ref_engine.reference.elementary import sigmoid
from ref_engine.reference.hyper import Writing, mean
from ref_engine.reference.sums import F32
from ref_engine.spec import GatedHyperSpec
from ref_engine.weights import Weights


def read_gated(x: F32, name: str, h: GatedHyperSpec, at: Site) -> tuple[F32, Writing]:
    """What a half reads of the streams (T, N, D) -> (T, D), and how its result is to come back."""
    s, y = gated_mean(x, f"blk.{at.blk}.{name}", h, at.weights, at.ops)
    inject = at.tap(f"{name}_inject", at.linear(s, f"{name}_inject"))
    return y, Writing(sigmoid(inject * np.float32(1 / h.n)) * np.float32(2), None)


def gated_mean(x: F32, name: str, h: GatedHyperSpec, weights: Weights, ops: Ops) -> tuple[F32, F32]:
    """The streams normalised, one behind another (T, N * D), and the mean of the gated ones (T, D)."""
    s = ops.rms_norm(x, None, h.eps) * weights[f"{name}_norm.weight"].f32()
    flat = np.ascontiguousarray(s, like=s).reshape(x.shape[0], -1)
    low = ops.activation(ops.linear(flat, weights[f"{name}_down.weight"]) * np.float32(1 / h.n), "silu")
    gate = ops.activation(ops.linear(low, weights[f"{name}_up.weight"]), "sigmoid").reshape(s.shape)
    return flat, mean(s * gate)
