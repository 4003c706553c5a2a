"""The wiring of recurrent layers where no small model of the golden set goes: old projections, both kinds of gates."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ref_engine.backends import get_ops
from ref_engine.blocks.deltanet import corrections_and_decays, projections, spread
from ref_engine.blocks.kda import log_decay
from ref_engine.blocks.site import Pass, Site
from ref_engine.files.types import GGMLType
from ref_engine.spec import DeltaNetSpec, KdaSpec, NormSpec
from ref_engine.weights import Weight, Weights

NORM = NormSpec("ssm_norm", 1e-6)


def site(tensors: dict[str, np.ndarray]) -> Site:
    """A layer of these tensors in a pass without sequences."""
    weights = {}
    for name, values in tensors.items():
        data = np.ascontiguousarray(values, np.float32).view(np.uint8).reshape(-1)
        weights[f"blk.0.{name}"] = Weight(name, GGMLType.F32, values.shape, data)
    taps = Pass(get_ops("numpy", "f32", 1), (), np.zeros(0, np.int64), {}, lambda name, layer, value: value, False)
    return Site(Weights(weights), 0, 0, taps)  # type: ignore[arg-type]


def test_old_and_new_projections_of_a_delta_net_are_the_same() -> None:
    """ssm_in: for each key head its query, key, values and gates; ssm_ba: for each key head its betas and alphas."""
    rng = np.random.default_rng(5)
    new = DeltaNetSpec(4, 2, 3, 4, NORM, 1e-6)
    old = replace(new, mixed=True, paired=True)
    d, hd, per_key = 5, 3, 2
    q, k = rng.standard_normal((2, 2 * hd, d)).astype(np.float32)
    v, z = rng.standard_normal((2, 4 * hd, d)).astype(np.float32)
    beta, alpha = rng.standard_normal((2, 4, d)).astype(np.float32)
    mixed, paired = [], []
    for g in range(2):
        keys, values, heads = slice(g * hd, (g + 1) * hd), slice(g * 6, (g + 1) * 6), slice(g * 2, g * 2 + per_key)
        mixed += [q[keys], k[keys], v[values], z[values]]
        paired += [beta[heads], alpha[heads]]
    at_new = site(
        {
            "attn_qkv.weight": np.concatenate([q, k, v]),
            "attn_gate.weight": z,
            "ssm_beta.weight": beta,
            "ssm_alpha.weight": alpha,
        }
    )
    at_old = site({"ssm_in.weight": np.concatenate(mixed), "ssm_ba.weight": np.concatenate(paired)})
    x = rng.standard_normal((6, d)).astype(np.float32)
    for one, other in zip(projections(x, new, at_new), projections(x, old, at_old), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    for one, other in zip(corrections_and_decays(x, new, at_new), corrections_and_decays(x, old, at_old), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_which_key_head_a_head_reads_with() -> None:
    """Two key heads for four: neighbours share one, or they take turns."""
    x = np.array([[[1], [2]]], np.float32)
    a = DeltaNetSpec(4, 2, 1, 4, NORM, 1e-6)
    assert spread(x, a).reshape(-1).tolist() == [1, 1, 2, 2]
    assert spread(x, replace(a, tiled=True)).reshape(-1).tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize("negated", [True, False])
@pytest.mark.parametrize("bound", [None, -5.0])
def test_decays_of_kimi_delta_attention(bound: float | None, negated: bool) -> None:
    """One feature, one head: f = 3 x + 1, A = 2; -A log(1 + e**f), or bound / (1 + e**(-A f))."""
    a = KdaSpec(1, 1, 4, NORM, 1e-6, bound=bound, negated=negated, decay=("ssm_f_a",))
    tensors = {
        "ssm_f_a.weight": np.array([[3.0]]),
        "ssm_dt.bias": np.array([1.0]),
        "ssm_a": np.array([[-2.0 if negated else 2.0]]),
    }
    got = log_decay(np.array([[0.5], [-1.0]], np.float32), a, site(tensors))
    f = [2.5, -2.0]
    want = [-2 * math.log1p(math.exp(y)) if bound is None else bound / (1 + math.exp(-2 * y)) for y in f]
    np.testing.assert_allclose(got.reshape(-1), want, rtol=1e-6)


def test_a_decay_projection_of_two_maps_is_their_product() -> None:
    a = KdaSpec(1, 1, 4, NORM, 1e-6, bound=-1.0)
    tensors = {
        "ssm_f_a.weight": np.array([[2.0]]),
        "ssm_f_b.weight": np.array([[3.0]]),
        "ssm_dt.bias": np.array([0.0]),
        "ssm_a": np.array([[-1.0]]),
    }
    got = log_decay(np.array([[0.5]], np.float32), a, site(tensors))
    np.testing.assert_allclose(got.reshape(-1), [-1 / (1 + math.exp(-3.0))], rtol=1e-6)
