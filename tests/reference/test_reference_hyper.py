"""Hyper-connections and compressed keys: small cases by hand, and invariants of the formulas."""

import math

import numpy as np
import pytest

from ref_engine.reference.compressed import ended, interleaved, pooled, windows
from ref_engine.reference.hyper import Writing, copied, doubly_stochastic, gathered, mean, reading, writing, written
from ref_engine.reference.rope import rope_last
from ref_engine.spec import HyperSpec


def f32(*values: object) -> np.ndarray:
    return np.array(values, np.float32)


def test_streams_begin_as_copies_and_end_as_their_mean() -> None:
    x = copied(f32([1, 2], [3, 4]), 3)
    assert x.tolist() == [[[1, 2]] * 3, [[3, 4]] * 3]
    assert mean(f32([[1, 0], [2, 6]])).tolist() == [[1.5, 3]]


def test_a_half_reads_a_weighted_sum() -> None:
    assert gathered(f32([[1, 2], [10, 20]]), f32([2, 0.5])).tolist() == [[7, 14]]


def test_what_a_half_gives_is_written_to_all_streams() -> None:
    x, y = f32([[1, 2], [10, 20]]), f32([1, 1])
    assert written(x, y, Writing(f32([2, 3]), None)).tolist() == [[[3, 4], [13, 23]]]
    mix = f32([[0, 1], [0.5, 0.25]])  # from stream 0 to 0 and 1, from stream 1 to 0 and 1
    assert written(x, y, Writing(f32([2, 3]), mix)).tolist() == [[[2 + 5, 2 + 10], [3 + 1 + 2.5, 3 + 2 + 5]]]


def test_weights_for_reading_and_writing() -> None:
    h = HyperSpec(n=2, norm_eps=1e-5, eps=0.25, magnitude=3.0, post_eps=0.5)
    m, scale, base = f32([1, -1, math.log(3), 0]), f32(2, 1), f32(-2, 2, 0, math.log(3))
    assert reading(m, scale, base, h).tolist() == [[0.75, 0.75]]  # sigmoid(0) + 0.25
    post, mix = writing(m, scale, base, h)
    np.testing.assert_allclose(post, [[3 * 0.75 + 0.5] * 2], rtol=1e-6)  # sigmoid(ln 3) = 3/4
    assert mix is None


def test_mixing_weights_come_row_by_row() -> None:
    """Rounds of 1: each row's softmax (+ eps), then columns of sum 1. Logits ln 1, ln 3, ln 1, ln 1."""
    h = HyperSpec(n=2, norm_eps=1e-5, eps=0.0, rounds=1)
    base = np.log(f32(1, 1, 1, 1, 1, 3, 1, 1))
    _, mix = writing(np.zeros((1, 8), np.float32), f32(1, 1, 1), base, h)
    assert mix is not None
    rows = np.array([[1 / 4, 3 / 4], [1 / 2, 1 / 2]])
    np.testing.assert_allclose(mix[0], rows / rows.sum(axis=0), rtol=1e-6)


def test_matrices_become_doubly_stochastic() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 4, 4)).astype(np.float32)
    m = doubly_stochastic(logits, 0.0, 60)
    np.testing.assert_allclose(m.sum(axis=-1), 1, atol=2e-6)
    np.testing.assert_allclose(m.sum(axis=-2), 1, atol=2e-6)
    # scaling rows and columns keeps these
    (a, b), (c, d) = m[:, :2, :2].transpose(1, 2, 0)
    (e, f), (g, h) = np.exp(logits[:, :2, :2].astype(np.float64)).transpose(1, 2, 0)
    np.testing.assert_allclose(a * d / (b * c), e * h / (f * g), rtol=1e-4)


def test_a_group_is_a_mean_feature_by_feature() -> None:
    values = f32([[4, 1], [8, 3]])
    gates = f32([[math.log(3), -np.inf], [0, 5]])
    np.testing.assert_allclose(pooled(values, gates), [[5, 3]], rtol=1e-6)


def test_members_of_a_group() -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    ends = np.array([3, 5])
    assert windows(x, ends, 2, overlap=False).tolist() == [[[4, 5], [6, 7]], [[8, 9], [10, 11]]]
    assert windows(x, ends, 2, overlap=True).tolist() == [[[0], [2], [5], [7]], [[4], [6], [9], [11]]]


def test_groups_stand_behind_their_last_token() -> None:
    assert ended(np.array([0, 2, 3, 8]), 3, 2).tolist() == [[False] * 2, [True, False], [True, False], [True, True]]
    tokens = np.arange(8)
    assert interleaved(tokens, np.array([-1, -2]), 3, axis=0).tolist() == [0, 1, 2, -1, 3, 4, 5, -2, 6, 7]


@pytest.mark.parametrize("pairing", ["adjacent", "halves"])
def test_only_the_last_features_are_turned(pairing: str) -> None:
    y = rope_last(f32([[5, 6, 1, 0]]), f32([0.6]), f32([0.8]), pairing)  # type: ignore[arg-type]
    np.testing.assert_allclose(y, [[[5, 6, 0.6, 0.8]]], rtol=1e-6)
