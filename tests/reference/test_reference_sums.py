"""The order of additions is the definition: checked against loops that spell it out."""

import numpy as np
import pytest

from ref_engine.reference.sums import lane_matmul, lane_sum


def spelled_out(terms: np.ndarray) -> np.float32:
    """Sixteen lanes, one after the other, then 8 + 8, 4 + 4, 2 + 2, 1 + 1."""
    lanes = [np.float32(0)] * 16
    for i, t in enumerate(terms):
        lanes[i % 16] = np.float32(lanes[i % 16] + t)
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [np.float32(lanes[i] + lanes[i + half]) for i in range(half)]
    return lanes[0]


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 64, 577])
def test_order(n: int) -> None:
    rng = np.random.default_rng(n)
    a = (rng.standard_normal((3, n)) * 10.0 ** rng.integers(-6, 6, (3, n))).astype(np.float32)
    b = rng.standard_normal((5, n)).astype(np.float32)
    assert lane_sum(a).tolist() == [spelled_out(row) for row in a]
    assert lane_matmul(a, b).tolist() == [[spelled_out(r * c) for c in b] for r in a]


def test_the_order_matters() -> None:
    """A sum that plain left-to-right addition gets differently, by hand: 2**24 swallows a 1 in the same lane only."""
    x = np.zeros(32, np.float32)
    x[0], x[1], x[2], x[16] = 2**24, 1, 1, 1
    # lane 0: 2**24 + 1 = 2**24; lanes 1 and 2 hold 1; the tree adds lane 0 + lane 2 = 2**24, then + lane 1 = 2**24
    assert lane_sum(x) == 2**24
    x[16], x[18] = 0, 1  # lane 2 now holds 2: 2**24 + 2, then + 1 rounds to even: 2**24 + 4
    assert lane_sum(x) == 2**24 + 4


def test_company_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((70, 96)).astype(np.float32), rng.standard_normal((1000, 96)).astype(np.float32)
    whole = lane_matmul(a, b)
    assert (lane_matmul(a[7:8], b) == whole[7:8]).all()
    assert (lane_matmul(a, b[11:13]) == whole[:, 11:13]).all()
