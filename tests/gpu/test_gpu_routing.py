"""Routing by the kernel, thread by thread on the host: the reference's experts, and its weights to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import standin
from emulator import why_not

from ref_engine.errors import ModelError
from ref_engine.gpu import routing
from ref_engine.reference import moe
from ref_engine.spec import RoutingSpec

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

SPECS = [
    RoutingSpec(),
    RoutingSpec(normalise=True),
    RoutingSpec("sigmoid", normalise=True, scale=2.5),
    RoutingSpec("sigmoid", normalise=True, groups=8, groups_used=4, scale=16.0),
    RoutingSpec("softmax", groups=4, groups_used=1),
    RoutingSpec("softmax", groups=24, groups_used=3),
    RoutingSpec("softmax_weight", select_by="logits"),
    RoutingSpec("softmax_weight", scale=0.5),
    RoutingSpec("sqrt_softplus", normalise=True, scale=1.5),
    RoutingSpec("softmax", select_by="sigmoid", normalise=True),
    RoutingSpec("softmax", soft_cap=30.0, normalise=True),
    RoutingSpec("sigmoid", soft_cap=0.5),
]


@pytest.fixture
def kernel(cupy: standin.Cupy, monkeypatch: pytest.MonkeyPatch) -> standin.Cupy:
    """No way to compose."""

    def refused(*args: Any) -> None:
        raise AssertionError("composed")

    monkeypatch.setattr(routing, "composed", refused)
    return cupy


def check(cupy: standin.Cupy, logits: np.ndarray, k: int, r: RoutingSpec, bias: Any = None, given: Any = None) -> None:
    with np.errstate(all="ignore"):
        want_ids, want = moe.route(logits, k, r, bias, given)
    ids, weights = routing.route(cupy.asarray(logits), k, r, None if bias is None else cupy.asarray(bias), given)
    assert ids.dtype == np.int32 and weights.dtype == np.float32
    np.testing.assert_array_equal(ids.get(), want_ids)
    np.testing.assert_array_equal(weights.get(), want)


@pytest.mark.parametrize("r", SPECS, ids=str)
def test_drawn_logits(r: RoutingSpec, kernel: standin.Cupy) -> None:
    rng = np.random.default_rng(1)
    for tokens, n, k in [(3, 24, 2), (1, 384, 8), (2, 48, 1), (1, 24, 24), (2, 240, 20)]:
        logits = (rng.standard_normal((tokens, n)) * 3).astype(np.float32)
        check(kernel, logits, k, r)
        check(kernel, logits, k, r, bias=(rng.standard_normal(n) / 10).astype(np.float32))


@pytest.mark.parametrize("r", SPECS, ids=str)
def test_ties_and_odd_numbers(r: RoutingSpec, kernel: standin.Cupy) -> None:
    """Equal scores, both zeros, saturated gates, NaN, infinity; of equals the first."""
    rng = np.random.default_rng(2)
    odd = [0.0, -0.0, 1.0, 1.0, 2.0, -50.0, 60.0, 80.0, -80.0, np.nan, np.inf, -np.inf]  # e**-90 would be denormal
    for size in (2, 5, 9, 12):
        check(kernel, rng.choice(odd[:size], (4, 48)).astype(np.float32), 6, r)
    for value in (0.0, -3.0, np.nan, np.inf, -np.inf):
        check(kernel, np.full((1, 48), value, np.float32), 4, r)
    sparse = np.where(rng.random((4, 48)) < 0.1, np.nan, rng.standard_normal((4, 48))).astype(np.float32)
    check(kernel, sparse, 40, r)
    check(kernel, np.zeros((2, 48), np.float32), 7, r, bias=rng.choice([0.0, 1.0, np.nan], 48).astype(np.float32))


def test_given_experts(kernel: standin.Cupy) -> None:
    logits = np.random.default_rng(3).standard_normal((3, 24)).astype(np.float32)
    given = np.array([[1, 1], [23, 0], [5, 7]])
    for r in (SPECS[1], SPECS[3], SPECS[6]):
        check(kernel, logits, 2, r, given=given)
    for bad in (24, -1):
        with pytest.raises(ModelError, match=f"ffn_gate_inp: expert {bad} is not one of"):
            routing.route(kernel.asarray(logits), 2, SPECS[0], None, np.full((3, 2), bad))


def test_parts_of_other_arrays(kernel: standin.Cupy) -> None:
    logits = np.random.default_rng(4).standard_normal((3, 60)).astype(np.float32)
    ids, weights = routing.route(kernel.asarray(logits)[:, 7:31], 3, SPECS[1])
    want_ids, want = moe.route(np.ascontiguousarray(logits[:, 7:31]), 3, SPECS[1])
    np.testing.assert_array_equal(ids.get(), want_ids)
    np.testing.assert_array_equal(weights.get(), want)


def test_what_the_kernel_does_not_know_is_composed(cupy: standin.Cupy) -> None:
    logits = np.random.default_rng(5).standard_normal((2, 8)).astype(np.float32)
    seen = []

    def tap(name: str, value: Any) -> Any:
        seen.append(name)
        return value * 2 if name == "ffn_moe_weights" else value

    def host_tap(name: str, value: Any) -> Any:
        return value * 2 if name == "ffn_moe_weights" else value

    want = moe.route(logits, 2, SPECS[0], tap=host_tap)
    got = routing.route(cupy.asarray(logits), 2, SPECS[0], tap=tap)
    np.testing.assert_array_equal(got[0].get(), want[0])
    np.testing.assert_allclose(got[1].get(), want[1], rtol=1e-6)
    assert "ffn_moe_argsort" in seen
    many = np.random.default_rng(6).standard_normal((1, 4000)).astype(np.float32)
    ids, _ = routing.route(cupy.asarray(many), 3, SPECS[0])
    np.testing.assert_array_equal(ids.get(), moe.route(many, 3, SPECS[0])[0])
    there = cupy.asarray(np.array([[1, 2], [3, 4]]))
    ids, _ = routing.route(cupy.asarray(logits), 2, SPECS[0], None, there)
    np.testing.assert_array_equal(ids.get(), there.get())
