"""Elementary functions: against float64 within units in the last place, and against ggml."""

from pathlib import Path

import numpy as np
import pytest

from ref_engine.reference import elementary


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    return np.abs(got.astype(np.float64) - exact) / np.spacing(np.abs(exact.astype(np.float32))).astype(np.float64)


def test_exp() -> None:
    x = np.concatenate([np.linspace(-87, 88.7, 200_001), np.linspace(-1e-3, 1e-3, 1001)]).astype(np.float32)
    assert ulps(elementary.exp(x), np.exp(x.astype(np.float64))).max() < 2


def test_exp_beyond_its_range() -> None:
    x = np.array([0, -0.0, 88.73, np.inf, -104, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(elementary.exp(x), np.array([1, 1, np.inf, np.inf, 0, 0, np.nan], np.float32))
    tiny = elementary.exp(np.array([-100.0], np.float32))  # a denormal
    assert abs(float(tiny[0]) - np.exp(-100.0)) <= 2**-149


def test_tanh() -> None:
    x = np.concatenate([np.linspace(-12, 12, 200_001), np.geomspace(1e-30, 1, 1000)]).astype(np.float32)
    assert ulps(elementary.tanh(x), np.tanh(x.astype(np.float64))).max() < 2.5
    ends = np.array([-np.inf, np.inf, np.nan, -0.0], np.float32)
    np.testing.assert_array_equal(elementary.tanh(ends), np.array([-1, 1, np.nan, -0.0], np.float32))


@pytest.mark.parametrize("name", ["sigmoid", "silu", "tanh"])
def test_against_ggml(name: str, golden: Path) -> None:
    data = np.load(golden / "ops" / "graph.npz")
    want = data[f"{name}/out"].astype(np.float64)
    got = getattr(elementary, name)(data[f"{name}/a"]).astype(np.float64)
    assert ((got - want) ** 2).sum() / (want**2).sum() < 1e-12


def test_gelu_is_ggmls_without_the_table(golden: Path) -> None:
    """ggml rounds the argument and the result to float16; done to ours, they agree."""
    data = np.load(golden / "ops" / "graph.npz")
    x, want = data["gelu/a"], data["gelu/out"].astype(np.float64)
    got = elementary.gelu(x).astype(np.float64)
    assert ((got - want) ** 2).sum() / (want**2).sum() < 1e-6
    tabled = elementary.gelu(x.astype(np.float16).astype(np.float32)).astype(np.float16).astype(np.float32)
    tabled = np.where(x <= -10, np.float32(0), np.where(x >= 10, x, tabled))
    assert (np.abs(tabled - data["gelu/out"]) <= np.spacing(np.abs(want).astype(np.float16)).astype(np.float32)).all()
    assert (tabled == data["gelu/out"]).mean() > 0.99
