"""Choosing groups of tokens by one key for each, against means, rankings and masks worked out by hand."""

import math

import numpy as np
import pytest

from ref_engine.reference.indexer import (
    block_means,
    complete,
    heap_select,
    highest,
    pooled_keys,
    token_scores,
    with_tail,
)


def f32(*rows: object) -> np.ndarray:
    return np.array(rows, np.float32)


# What std::partial_sort of GNU's C++ library left in the first n places, sorted (a program of ten lines, run once).
PARTIAL_SORT = [
    ([1, 1, 1, 1, 1, 1], 3, [0, 1, 2]),
    ([0, 2, 0, 1, 0, 2, 0, 3], 4, [1, 3, 5, 7]),
    ([5, 0, 0, 0, 0, 5, 5], 4, [0, 1, 5, 6]),
    ([1, 1, 2, 2, 1, 1, 3, 3, 1, 1], 5, [0, 2, 3, 6, 7]),
    ([0, 0, 0, 0, 0, 0, 0, 1], 4, [0, 1, 3, 7]),
    ([2, 1, 2, 1, 2, 1, 2, 1], 5, [0, 1, 2, 4, 6]),
]


@pytest.mark.parametrize(("scores", "n", "kept"), PARTIAL_SORT)
def test_equal_scores_leave_what_gnus_heap_leaves(scores: list[float], n: int, kept: list[int]) -> None:
    assert sorted(heap_select(scores, n)) == kept
    assert np.nonzero(highest(f32(scores), n)[0])[0].tolist() == kept


def test_a_single_best_one() -> None:
    assert heap_select([3.0, 5.0, 5.0], 1) == [1]


def test_fewer_visible_than_wanted() -> None:
    inf = -math.inf
    assert highest(f32([inf, 2, inf, 1], [inf, inf, inf, inf]), 3).tolist() == [[False, True, False, True], [False] * 4]
    assert highest(f32([inf, 2]), 5).tolist() == [[False, True]]


def test_pooled_key_is_weighted_feature_by_feature() -> None:
    """Weights 1/2, 1/2 for the first feature, and e**0 : e**ln 3 for the second; the fifth token makes no pool."""
    k = f32([2, 4], [4, 8], [1, 1], [1, 1], [9, 9])
    gate = f32([0, 0], [0, 0], [5, 0], [5, 0], [0, 0])
    place = f32([0, 0], [0, math.log(3)])
    np.testing.assert_allclose(pooled_keys(k, gate, place), [[3, 7], [1, 1]], rtol=1e-6)


def test_block_means() -> None:
    assert block_means(f32([1, 2], [3, 4], [5, 9], [7, 7], [8, 8]), 2).tolist() == [[2, 3], [6, 8]]


def test_groups_that_have_ended() -> None:
    """Groups of 3: the first ends with position 2, the second with position 5."""
    assert complete(np.array([1, 2, 4, 5]), 3, 2).tolist() == [[False] * 2, [True, False], [True, False], [True] * 2]


def test_chosen_groups_and_the_tail() -> None:
    """At position 6 with groups of 3, the second of them chosen: its tokens and token 6. At 5 there is no tail."""
    chosen = np.array([[False, True], [False, True]])
    got = with_tail(chosen, np.array([6, 5]), 3, 8)
    assert [np.nonzero(row)[0].tolist() for row in got] == [[3, 4, 5, 6], [3, 4, 5]]


def test_token_scores() -> None:
    """Blocks of 2 at positions 2 and 3 of five keys: at 2 the second block has not ended, so its token comes first."""
    inf = math.inf
    got = token_scores(f32([7, 9], [7, 9]), np.array([2, 3]), 2, 5)
    assert got.tolist() == [[7, 7, inf, -inf, -inf], [7, 7, 9, 9, -inf]]
