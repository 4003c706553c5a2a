"""The choice of tokens in sparse attention, against sums and rankings worked out by hand."""

import numpy as np
import pytest

from ref_engine.reference.hadamard import hadamard
from ref_engine.reference.indexer import highest_blocks, index_scores, marked, ranked


def f32(*rows: object) -> np.ndarray:
    return np.array(rows, np.float32)


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_hadamard_is_sylvesters_matrix(n: int) -> None:
    """H(2n) = [[H, H], [H, -H]], over the square root of its size."""
    matrix = np.ones((1, 1))
    while len(matrix) < n:
        matrix = np.kron([[1, 1], [1, -1]], matrix)
    x = np.random.default_rng(n).standard_normal((3, 2, n)).astype(np.float32)
    got = hadamard(x)
    np.testing.assert_allclose(got, x @ matrix / np.sqrt(n), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(hadamard(got), x, rtol=1e-5, atol=1e-6)


def test_scores_are_weighted_positive_parts() -> None:
    """Heads (1, 0) and (0, 1) with weights 2 and -3: keys (4, 1), (-1, 5), (-1, -1)."""
    q, k, weights = f32([[1, 0], [0, 1]]), f32([4, 1], [-1, 5], [-1, -1]), f32([2, -3])
    assert index_scores(q, k, weights).tolist() == [[2 * 4 - 3 * 1, -3 * 5, 0]]


def test_ranks_are_best_first_and_the_first_of_equal_ones() -> None:
    scores, visible = f32([1, 7, 7, 0, 9]), np.array([[True, True, True, True, False]])
    assert ranked(scores, visible, 3).tolist() == [[1, 2, 0]]
    assert ranked(f32([0, 0, 0, 5, 0]), np.ones((1, 5), bool), 3).tolist() == [[3, 0, 1]]


def test_marks_are_what_is_visible_of_the_ranks() -> None:
    visible = np.array([[True, False, False, False], [True, True, True, False]])
    scores = f32([3, 8, 9, 9], [3, 8, 9, 9])
    chosen = marked(ranked(scores, visible, 2), visible)
    assert chosen.tolist() == [[True, False, False, False], [False, True, True, False]]


def test_ranks_beyond_the_keys_are_an_error() -> None:
    with pytest.raises(ValueError, match="top_k: 0 to 4"):
        marked(np.array([[0, 4]]), np.ones((1, 4), bool))


def test_later_keys_change_no_choice() -> None:
    rng = np.random.default_rng(3)
    q, k = (rng.standard_normal(shape).astype(np.float32) for shape in ((20, 4, 8), (20, 8)))
    weights = rng.standard_normal((20, 4)).astype(np.float32)
    visible = np.tril(np.ones((20, 20), bool))
    whole = marked(ranked(index_scores(q, k, weights), visible, 5), visible)
    for t in range(20):
        seen = visible[t : t + 1, : t + 1]
        alone = marked(ranked(index_scores(q[t : t + 1], k[: t + 1], weights[t : t + 1]), seen, 5), seen)
        assert (alone[0] == whole[t, : t + 1]).all() and not whole[t, t + 1 :].any()
        assert whole[t].sum() == min(t + 1, 5)


def blocks_of(position: int, n: int, local: int) -> list[int]:
    """The tokens that one query sees of 10 in blocks of 3 with keys 0 1 2 | 3 9 5 | 6 7 8 | 4."""
    k = f32(*([x] for x in (0, 1, 2, 3, 9, 5, 6, 7, 8, 4)))
    visible = np.arange(10)[None] <= position
    chosen = highest_blocks(f32([[1.0]]), k, visible, np.array([position]), block=3, n=n, local=local)
    return np.flatnonzero(chosen[0, 0]).tolist()


def test_blocks_go_by_their_best_visible_token() -> None:
    assert blocks_of(9, n=1, local=0) == [3, 4, 5]
    assert blocks_of(9, n=2, local=0) == [3, 4, 5, 6, 7, 8]
    assert blocks_of(3, n=1, local=0) == [3]  # 9 is not visible yet, 3 beats 2
    assert blocks_of(9, n=2, local=1) == [3, 4, 5, 9]  # its own block, and the best
    assert blocks_of(9, n=2, local=2) == [6, 7, 8, 9]
    assert blocks_of(1, n=2, local=2) == [0, 1]


def test_each_group_of_heads_has_its_blocks() -> None:
    q, k = f32([[1, 0], [0, 1]]), f32([5, 0], [0, 0], [0, 5], [1, 1])
    chosen = highest_blocks(q, k, np.ones((1, 4), bool), np.array([3]), block=1, n=1, local=0)
    assert chosen[:, 0].tolist() == [[True, False, False, False], [False, False, True, False]]
