"""Embeddings of several tokens, attention over depth, and gated streams, against arithmetic by hand."""

import math

import numpy as np

from ref_engine.reference.conv import causal_conv
from ref_engine.reference.depth import depth_weights, weighted_sum
from ref_engine.reference.ngram import gates, latest, table_rows
from ref_engine.spec import NgramSpec

SPEC = NgramSpec(
    n=2, d_model=4, size=3, conv=2, multipliers=(3, 5, 2**63 + 1), offsets=(0, 10, 20, 30), sizes=(7, 10, 9, 11),
    width=1, rows=41, eos=0, eps=1e-6,
)  # fmt: skip


def f32(*rows: object) -> np.ndarray:
    return np.array(rows, np.float32)


def test_latest_tokens_begin_anew_after_the_end_of_a_text() -> None:
    """Token 9 ends a text. It keeps what lies before itself, and hides it from those behind."""
    got = latest(np.array([4, 5, 9, 6, 7]), 5, 3, 9)
    assert got.tolist() == [[4, 9, 9], [5, 4, 9], [9, 5, 4], [6, 9, 9], [7, 6, 9]]


def test_latest_tokens_of_a_part_of_a_sequence() -> None:
    whole = latest(np.array([4, 5, 9, 6, 7]), 5, 3, 9)
    assert (latest(np.array([9, 6, 7]), 1, 3, 9) == whole[4:]).all()
    assert (latest(np.array([5, 9, 6, 7]), 2, 3, 9) == whole[3:]).all()


def test_rows_are_hashes() -> None:
    """Tokens 4, 6, 3: 12 xor 30 = 18 for two of them; 3 (2**63 + 1) = 2**63 + 3 modulo 2**64 for the third."""
    two, three = 12 ^ 30, 12 ^ 30 ^ (2**63 + 3)
    want = [two % 7, two % 10 + 10, three % 9 + 20, three % 11 + 30]
    assert table_rows(np.array([[4, 6, 3]]), SPEC).tolist() == [want]


def test_gate_takes_a_signed_root() -> None:
    """Products of 8, -2 and 0 over sqrt(4): 4, -1, 0; sigmoids of 2, -1 and 0."""
    key = f32([[4, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    query = f32([[2, 0, 0, 0], [-1, -1, 9, 9], [1, 1, 1, 1]])
    want = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1)), 0.5]
    np.testing.assert_allclose(gates(key, query), [want], rtol=1e-6)


def test_convolution_over_tokens_apart() -> None:
    """Filter (10, 1) with steps of 2: each token plus ten times the one two before it."""
    y, before = causal_conv(f32([3], [4], [5]), f32([1], [2]), f32([10, 1]), 2)
    assert y.ravel().tolist() == [3 + 10 * 1, 4 + 10 * 2, 5 + 10 * 3]
    assert before.ravel().tolist() == [4, 5]


def test_depth_weights_do_not_see_the_size_of_a_stream() -> None:
    """Streams along (1, 1) and (1, -1) with the score (ln 3 / 2, ln 3 / 2): scores ln 3 and 0, weights 3/4 and 1/4."""
    score = f32(math.log(3) / 2, math.log(3) / 2)
    for size in (1.0, 100.0):
        streams = [f32([size, size]), f32([1, -1])]
        weights = depth_weights(streams, score, 1e-9)
        np.testing.assert_allclose(weights, [[0.75, 0.25]], rtol=1e-5)
        np.testing.assert_allclose(
            weighted_sum(streams, weights), [[0.75 * size + 0.25, 0.75 * size - 0.25]], rtol=1e-5
        )
