"""Recurrences against other forms of themselves in float64: sums over all earlier tokens instead of a state."""

import numpy as np
import pytest

from ref_engine.reference.conv import causal_conv, centred_conv
from ref_engine.reference.delta import gated_delta_rule
from ref_engine.reference.elementary import log, softplus
from ref_engine.reference.norm import l2_norm
from ref_engine.reference.ssm import ssm_scan


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


# -- log and softplus ---------------------------------------------------------------------------------------------


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    return np.abs(got.astype(np.float64) - exact) / np.spacing(np.abs(exact.astype(np.float32))).astype(np.float64)


def test_log() -> None:
    x = np.concatenate([np.geomspace(1.2e-38, 3.4e38, 200_001), np.linspace(0.5, 2, 20_001)]).astype(np.float32)
    assert ulps(log(x), np.log(x.astype(np.float64))).max() < 2


def test_softplus() -> None:
    x = np.concatenate([np.linspace(-86, 100, 200_001), np.linspace(-1e-3, 1e-3, 1001)]).astype(np.float32)
    assert ulps(softplus(x), np.logaddexp(0, x.astype(np.float64))).max() < 3
    ends = np.array([0, np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(softplus(ends), np.array([np.log(2), np.inf, 0, np.nan], np.float32))


# -- convolutions -------------------------------------------------------------------------------------------------


def test_causal_conv_by_hand() -> None:
    """One channel, filter (1, 10, 100) from the oldest token to the newest; before come 7 and 8."""
    x = np.array([[1], [2], [3]], np.float32)
    y, before = causal_conv(x, np.array([[7], [8]], np.float32), np.array([[1, 10, 100]], np.float32))
    np.testing.assert_array_equal(y, [[7 + 80 + 100], [8 + 10 + 200], [1 + 20 + 300]])
    np.testing.assert_array_equal(before, [[2], [3]])


def test_a_conv_of_fewer_tokens_than_its_filter_keeps_older_ones() -> None:
    y, before = causal_conv(
        np.array([[5]], np.float32), np.array([[1], [2], [3]], np.float32), np.ones((1, 4), np.float32)
    )
    np.testing.assert_array_equal(y, [[11]])
    np.testing.assert_array_equal(before, [[2], [3], [5]])


def test_a_filter_of_one_token_remembers_nothing() -> None:
    y, before = causal_conv(np.array([[5]], np.float32), np.zeros((0, 1), np.float32), np.array([[3]], np.float32))
    np.testing.assert_array_equal(y, [[15]])
    assert before.shape == (0, 1)


def test_centred_conv_by_hand() -> None:
    x = np.array([[1], [2], [3]], np.float32)
    y = centred_conv(x, np.array([[1, 10, 100]], np.float32))
    np.testing.assert_array_equal(y, [[0 + 10 + 200], [1 + 20 + 300], [2 + 30 + 0]])


def test_l2_norm_by_hand() -> None:
    """(3, 4) has length 5; with 11 more under the root, 6."""
    x = np.array([[3, 4]], np.float32)
    np.testing.assert_allclose(l2_norm(x, 0.0), [[0.6, 0.8]], rtol=1e-7)
    np.testing.assert_allclose(l2_norm(x, 11.0), [[0.5, 4 / 6]], rtol=1e-7)


# -- state-space models -------------------------------------------------------------------------------------------


def ssm_by_sums(x: np.ndarray, dt: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """y_t = sum over s up to t of (e**(a (dt_s+1 + ... + dt_t)) b_s . c_t) dt_s x_s: the form like attention."""
    x, dt, a, b, c = (part.astype(np.float64) for part in (x, dt, a, b, c))
    n, heads, width = x.shape
    y = np.zeros((n, heads, width))
    for t in range(n):
        for h in range(heads):
            g = h * b.shape[1] // heads
            for s in range(t + 1):
                kept = np.exp(a[h] * dt[s + 1 : t + 1, h].sum())
                y[t, h] += (kept * b[s, g] * c[t, g]).sum() * dt[s, h] * x[s, h]
    return y


@pytest.mark.parametrize("mamba2", [False, True])
def test_ssm_scan_is_the_sum_over_earlier_tokens(mamba2: bool) -> None:
    rng = np.random.default_rng(1)
    n, heads, width, groups, state = (9, 6, 4, 3, 5) if mamba2 else (9, 6, 1, 1, 5)
    x, b, c = draw(rng, n, heads, width), draw(rng, n, groups, state), draw(rng, n, groups, state)
    dt = np.abs(draw(rng, n, heads))
    a = -np.abs(draw(rng, heads, 1 if mamba2 else state))
    y, _ = ssm_scan(x, dt, a, b, c, np.zeros((state, heads, width), np.float32))
    want = ssm_by_sums(x, dt, a, b, c)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_ssm_scan_by_hand() -> None:
    """One head, one number of state that halves at each step of 1: 2, then 2 / 2 + 3; read out times 10."""
    one = np.ones((2, 1, 1), np.float32)
    halving = np.array([[-np.log(2)]], np.float32)
    x = np.array([[[2]], [[3]]], np.float32)
    y, state = ssm_scan(x, one[:, :, 0], halving, one, 10 * one, np.zeros((1, 1, 1), np.float32))
    np.testing.assert_allclose(y[:, 0, 0], [20, 40], rtol=1e-6)
    np.testing.assert_allclose(state, [[[4]]], rtol=1e-6)


def test_ssm_scan_leaves_its_state_alone_and_gives_the_same_bits_in_parts() -> None:
    rng = np.random.default_rng(2)
    x, b, c = draw(rng, 7, 4, 3), draw(rng, 7, 2, 20), draw(rng, 7, 2, 20)
    dt, a, state = np.abs(draw(rng, 7, 4)), -np.abs(draw(rng, 4, 1)), draw(rng, 20, 4, 3)
    start = state.copy()
    whole, end = ssm_scan(x, dt, a, b, c, state)
    np.testing.assert_array_equal(state, start)
    first, between = ssm_scan(x[:3], dt[:3], a, b[:3], c[:3], state)
    second, last = ssm_scan(x[3:], dt[3:], a, b[3:], c[3:], between)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    np.testing.assert_array_equal(last, end)


# -- the gated delta rule -----------------------------------------------------------------------------------------


def delta_by_products(q: np.ndarray, k: np.ndarray, v: np.ndarray, decay: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """S_t = sum over s of (M_t ... M_s+1) beta_s k_s v_s^T with M = (I - beta k k^T) diag(e**decay); o = S^T q."""
    q, k, v, decay, beta = (part.astype(np.float64) for part in (q, k, v, decay, beta))
    n, heads, width = q.shape
    out = np.zeros((n, heads, v.shape[2]))
    for h in range(heads):
        m = [(np.eye(width) - beta[t, h] * np.outer(k[t, h], k[t, h])) @ np.diag(np.exp(decay[t, h])) for t in range(n)]
        for t in range(n):
            s = np.zeros((width, v.shape[2]))
            for i in range(t + 1):
                term = beta[i, h] * np.outer(k[i, h], v[i, h])
                for j in range(i + 1, t + 1):
                    term = m[j] @ term
                s += term
            out[t, h] = s.T @ q[t, h] / np.sqrt(width)
    return out


@pytest.mark.parametrize("per_feature", [False, True])
def test_the_delta_rule_is_a_product_of_corrections(per_feature: bool) -> None:
    rng = np.random.default_rng(3)
    n, heads, width, values = 8, 3, 5, 4
    q, k, v = draw(rng, n, heads, width), l2_norm(draw(rng, n, heads, width), 1e-6), draw(rng, n, heads, values)
    decay = -np.abs(draw(rng, n, heads, width if per_feature else 1))
    beta = 1 / (1 + np.exp(-draw(rng, n, heads)))
    y, _ = gated_delta_rule(q, k, v, decay, beta, np.zeros((width, heads, values), np.float32))
    wide = np.broadcast_to(decay, (n, heads, width))
    want = delta_by_products(q, k, v, wide, beta)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_a_value_put_twice_at_one_key_is_there_once() -> None:
    """Without decay and with a correction of 1, the second value takes the place of the first, and others stay."""
    key, other = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    k = np.stack([key, other, key])[:, None]
    v = np.array([[5], [7], [9]], np.float32)[:, None]
    ones = np.ones((3, 1), np.float32)
    _, state = gated_delta_rule(k, k, v, 0 * ones[:, :, None], ones, np.zeros((2, 1, 1), np.float32))
    np.testing.assert_array_equal(state, [[[9]], [[7]]])


def test_the_delta_rule_leaves_its_state_alone_and_gives_the_same_bits_in_parts() -> None:
    rng = np.random.default_rng(4)
    q, k, v = draw(rng, 6, 2, 20), l2_norm(draw(rng, 6, 2, 20), 1e-6), draw(rng, 6, 2, 3)
    decay, beta, state = -np.abs(draw(rng, 6, 2, 20)), np.abs(draw(rng, 6, 2)), draw(rng, 20, 2, 3)
    start = state.copy()
    whole, end = gated_delta_rule(q, k, v, decay, beta, state)
    np.testing.assert_array_equal(state, start)
    parts, between = [], state
    for t in range(6):
        rows = slice(t, t + 1)
        y, between = gated_delta_rule(q[rows], k[rows], v[rows], decay[rows], beta[rows], between)
        parts.append(y)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(between, end)
