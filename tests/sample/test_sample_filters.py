"""The filters on distributions small enough to work out by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ref_engine.sample import (
    Logits,
    best,
    dynamic_temperature,
    log_sum_exp,
    min_p,
    mirostat_mu,
    mirostat_v1,
    mirostat_v2,
    softmax,
    temperature,
    top_k,
    top_n_sigma,
    top_p,
    typical,
    xtc,
)

INF = math.inf
RISING = (0.1, 0.2, 0.3, 0.4)
FALLING = (0.4, 0.3, 0.2, 0.1)


def logits_of(*probs: float) -> Logits:
    """Logits whose softmax is probs; probability 0 is a removed candidate."""
    return np.array([math.log(p) if p else -INF for p in probs], dtype=np.float32)


def left(logits: Logits) -> list[int]:
    return np.flatnonzero(logits > -INF).tolist()


# --- distribution -----------------------------------------------------------------------------------------


def test_softmax_and_log_sum_exp() -> None:
    logits = np.array([0.0, math.log(3.0), -INF], dtype=np.float32)
    assert softmax(logits) == pytest.approx([0.25, 0.75, 0.0])
    assert log_sum_exp(logits) == pytest.approx(math.log(4.0))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 40, 1000])
def test_the_best_of_few_candidates_are_those_of_a_full_sort(k: int) -> None:
    """Where a grammar has removed most: what is left comes first, then the removed ones by position."""
    values = np.full(100, -INF, dtype=np.float32)
    values[[90, 3, 50, 7]] = [1.0, 2.0, 2.0, -5.0]
    assert best(values, k).tolist() == np.argsort(-values, kind="stable")[:k].tolist()


def test_log_sum_exp_of_more_than_one_piece_and_far_from_zero() -> None:
    assert log_sum_exp(np.full(20_000, 3e4, dtype=np.float32)) == pytest.approx(3e4 + math.log(20_000), rel=1e-15)


@pytest.mark.parametrize(("k", "expected"), [(0, []), (1, [1]), (3, [1, 4, 0]), (5, [1, 4, 0, 2, 3]), (9, 5), (-2, [])])
def test_best_breaks_ties_by_lower_position(k: int, expected: list[int] | int) -> None:
    values = np.array([2.0, 7.0, 2.0, 1.0, 7.0])
    assert best(values, k).tolist() == (expected if isinstance(expected, list) else best(values, expected).tolist())


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=80), st.integers(0, 90))
def test_best_is_the_head_of_a_full_stable_sort(values: list[int], k: int) -> None:
    by_hand = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert best(np.array(values, dtype=np.float32), k).tolist() == by_hand


# --- temperature ------------------------------------------------------------------------------------------


def test_temperature_divides() -> None:
    assert temperature(np.array([1.0, -3.0], np.float32), 0.5).tolist() == [2.0, -6.0]


@pytest.mark.parametrize("t", [0.0, -1.0, 1e-50])
def test_temperature_zero_keeps_the_first_of_the_largest(t: float) -> None:
    assert temperature(np.array([1.0, 5.0, 5.0, -INF], np.float32), t).tolist() == [-INF, 5.0, -INF, -INF]


def test_minute_temperature_does_not_overflow() -> None:
    after = temperature(np.array([10.0, 20.0, 20.0], np.float32), 1e-38)
    assert softmax(after).tolist() == [0.0, 0.5, 0.5]


def test_dynamic_temperature_at_its_ends() -> None:
    # four equally likely candidates: entropy is the largest possible, so t + spread = 2
    even = np.full(5, 8.0, np.float32)
    even[4] = -INF  # gone, so that it does not count among the possible
    assert dynamic_temperature(even, 1.5, 0.5, 1.0).tolist() == [4.0, 4.0, 4.0, 4.0, -INF]
    # certainty: entropy 0, so t - spread = 0.5
    assert dynamic_temperature(np.array([200.0, -200.0], np.float32), 1.0, 0.5, 1.0).tolist() == [
        400.0,
        -400.0,
    ]
    # t - spread below 0 counts as 0, which is greedy
    assert left(dynamic_temperature(np.array([200.0, -200.0], np.float32), 1.0, 1.5, 1.0)) == [0]


def test_dynamic_temperature_between_its_ends() -> None:
    # p = 1/2, 1/4, 1/4: entropy 1.5 bits of log2(3) possible
    share = 1.5 / math.log2(3)
    logits = logits_of(0.5, 0.25, 0.25)
    expected = logits / (0.5 + 1.0 * share**2)
    assert dynamic_temperature(logits, 1.0, 0.5, 2.0) == pytest.approx(expected, rel=1e-6)


def test_dynamic_temperature_without_spread_or_choice() -> None:
    logits = logits_of(0.5, 0.5)
    assert dynamic_temperature(logits, 2.0, 0.0, 1.0).tolist() == temperature(logits, 2.0).tolist()
    alone = logits_of(0.5, 0.0)
    assert dynamic_temperature(alone, 2.0, 0.5, 1.0) is alone


# --- what stays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "kept"), [(1, [3]), (3, [1, 2, 3]), (4, [0, 1, 2, 3]), (0, [0, 1, 2, 3]), (-1, [0, 1, 2, 3])]
)
def test_top_k(k: int, kept: list[int]) -> None:
    assert left(top_k(logits_of(*RISING), k)) == kept


def test_top_k_of_a_tie_keeps_the_lower_id() -> None:
    assert left(top_k(np.array([1.0, 2.0, 1.0, 1.0], np.float32), 2)) == [0, 1]


@pytest.mark.parametrize(
    ("p", "min_keep", "kept"),
    [
        (0.0, 0, [3]),
        (0.39, 0, [3]),
        (0.41, 0, [2, 3]),
        (0.7, 0, [2, 3]),  # reached exactly: 0.4 + 0.3
        (0.71, 0, [1, 2, 3]),
        (0.8, 0, [1, 2, 3]),
        (1.0, 0, [0, 1, 2, 3]),
        (0.0, 3, [1, 2, 3]),
        (0.0, 9, [0, 1, 2, 3]),
    ],
)
def test_top_p(p: float, min_keep: int, kept: list[int]) -> None:
    assert left(top_p(logits_of(*RISING), p, min_keep)) == kept


def test_top_p_needs_more_than_its_first_guess() -> None:
    # 20,000 equal candidates: half of the mass is the first half of the ids
    assert left(top_p(np.zeros(20_000, np.float32), 0.5)) == list(range(10_000))


@pytest.mark.parametrize(
    ("p", "min_keep", "kept"),
    [
        (0.0, 0, [0, 1, 2, 3]),
        (0.24, 0, [0, 1, 2, 3]),
        (0.26, 0, [1, 2, 3]),
        (0.49, 0, [1, 2, 3]),
        (0.51, 0, [2, 3]),
        (0.76, 0, [3]),
        (1.0, 0, [3]),
        (1.05, 0, [3]),
        (0.76, 2, [2, 3]),
        (0.26, 2, [1, 2, 3]),
    ],
)
def test_min_p(p: float, min_keep: int, kept: list[int]) -> None:
    assert left(min_p(logits_of(*RISING), p, min_keep)) == kept


def test_min_p_one_keeps_all_that_tie_for_the_best() -> None:
    assert left(min_p(np.array([2.0, 1.0, 2.0], np.float32), 1.0)) == [0, 2]


@pytest.mark.parametrize(
    ("probs", "p", "min_keep", "kept"),
    [
        # entropy 0.168: the likeliest, surprise 0.03, is nearest to it, and its 0.97 exceeds 0.5
        ((0.97, 0.01, 0.01, 0.01), 0.5, 0, [0]),
        ((0.97, 0.01, 0.01, 0.01), 0.5, 2, [0, 1]),
        # entropy 1.332: the three of surprise 1.609 are nearer than the likeliest of 0.916
        ((0.4, 0.2, 0.2, 0.2), 0.5, 0, [1, 2, 3]),
        ((0.4, 0.2, 0.2, 0.2), 0.3, 0, [1, 2]),
        ((0.4, 0.2, 0.2, 0.2), 0.7, 0, [0, 1, 2, 3]),
        ((0.4, 0.2, 0.2, 0.2), 1.0, 0, [0, 1, 2, 3]),
        ((0.4, 0.0, 0.3, 0.3), 0.2, 0, [2]),
    ],
)
def test_typical(probs: tuple[float, ...], p: float, min_keep: int, kept: list[int]) -> None:
    assert left(typical(logits_of(*probs), p, min_keep)) == kept


def test_typical_has_to_exceed_p_where_top_p_has_to_reach_it() -> None:
    even = logits_of(0.25, 0.25, 0.25, 0.25)
    assert left(top_p(even, 0.5)) == [0, 1]
    assert left(typical(even, 0.5)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("n", "kept"), [(0.0, [0, 1, 2, 3]), (-1.0, [0, 1, 2, 3]), (0.4, [3]), (1.0, [2, 3]), (3.0, [0, 1, 2, 3])]
)
def test_top_n_sigma(n: float, kept: list[int]) -> None:
    # logits -2.303 -1.609 -1.204 -0.916: mean -1.508, deviation 0.518
    assert left(top_n_sigma(logits_of(*RISING), n)) == kept


def test_top_n_sigma_does_not_count_what_is_removed() -> None:
    # 0 and 2: deviation 1, so that 1.9 removes the lower and 2.1 does not
    logits = np.array([0.0, -INF, 2.0], np.float32)
    assert left(top_n_sigma(logits, 1.9)) == [2]
    assert left(top_n_sigma(logits, 2.1)) == [0, 2]


@pytest.mark.parametrize(
    ("threshold", "min_keep", "kept"),
    [
        (0.09, 0, [3]),
        (0.19, 0, [2, 3]),
        (0.29, 0, [1, 2, 3]),
        (0.39, 0, [0, 1, 2, 3]),  # only one is above: nothing to exclude
        (0.45, 0, [0, 1, 2, 3]),
        (0.51, 0, [0, 1, 2, 3]),
        (0.09, 1, [3]),
        (0.09, 2, [0, 1, 2, 3]),  # one would stay
        (0.0, 0, [3]),
    ],
)
def test_xtc(threshold: float, min_keep: int, kept: list[int]) -> None:
    assert left(xtc(logits_of(*FALLING), 1.0, threshold, 0.5, min_keep)) == kept


@pytest.mark.parametrize(
    ("probability", "draw", "excludes"),
    [(0.5, 0.49, True), (0.5, 0.5, True), (0.5, 0.51, False), (0.0, 0.0, False)],
)
def test_xtc_happens_by_chance(probability: float, draw: float, excludes: bool) -> None:
    assert (left(xtc(logits_of(*FALLING), probability, 0.1, draw)) != [0, 1, 2, 3]) is excludes


def test_xtc_of_a_tie_removes_the_lower_ids() -> None:
    assert left(xtc(logits_of(0.3, 0.3, 0.3, 0.1), 1.0, 0.2, 0.0)) == [2, 3]


# --- mirostat ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mu", "kept"), [(0.5, [0]), (1.0, [0]), (1.9, [0]), (2.0, [0, 1]), (3.0, [0, 1, 2, 3])])
def test_mirostat_v2_cuts_at_mu_bits(mu: float, kept: list[int]) -> None:
    assert left(mirostat_v2(np.array([3.0, 2.0, 1.0, 1.0], np.float32) * np.float32(math.log(2)), mu)) == kept


def test_mirostat_mu_moves_against_the_error() -> None:
    assert mirostat_mu(10.0, 0.25, tau=5.0, eta=0.1) == pytest.approx(10.3)  # 2 bits, 3 below the target
    assert mirostat_mu(10.0, 2.0**-9, tau=5.0, eta=0.1) == pytest.approx(9.6)


def zipf(exponent: float, n: int) -> Logits:
    return np.asarray(-exponent * np.log(np.arange(1, n + 1)), dtype=np.float32)


@pytest.mark.parametrize(("exponent", "mu"), [(1.5, 3.0), (2.0, 5.0), (1.2, 6.0), (0.8, 5.0)])
def test_mirostat_v1_on_an_exact_zipf_law(exponent: float, mu: float) -> None:
    # on an exact law the fit gives the exponent itself, and the paper's equation the number to keep
    n = 1000
    epsilon = exponent - 1
    k = (epsilon * 2**mu / (1 - n**-epsilon)) ** (1 / exponent)
    assert left(mirostat_v1(zipf(exponent, n), mu, n_vocab=n)) == list(range(int(k)))


def test_mirostat_v1_where_the_equation_says_nothing() -> None:
    # exponent 1: the limit of epsilon / (1 - n ** -epsilon) is 1 / log(n), here k = 2 ** 5 / log(1000) = 4.63
    ones = np.full(100, 0, np.float32) + zipf(1.0, 1000)[:100]
    assert len(left(mirostat_v1(ones, 5.0, n_vocab=1000))) == 4
    even = np.zeros(16, np.float32)  # every token has 4 bits
    assert left(mirostat_v1(even, 3.9, n_vocab=16)) == [0]
    assert left(mirostat_v1(even, 4.1, n_vocab=16)) == list(range(16))
    assert len(left(mirostat_v1(zipf(1.5, 50), 1e4, n_vocab=50))) == 50
    assert len(left(mirostat_v1(zipf(1.5, 50), -1e4, n_vocab=50))) == 1


# --- what holds for all -----------------------------------------------------------------------------------

ANY_FILTER: dict[str, Callable[[Logits, float, int], Logits]] = {
    "temperature": lambda x, p, n: temperature(x, 3 * p),
    "dynamic_temperature": lambda x, p, n: dynamic_temperature(x, 1.0, p, 1 + n),
    "top_k": lambda x, p, n: top_k(x, n),
    "top_p": top_p,
    "min_p": min_p,
    "typical": typical,
    "top_n_sigma": lambda x, p, n: top_n_sigma(x, 3 * p),
    "xtc": lambda x, p, n: xtc(x, 1.0, p / 2, 0.0, n),
    "mirostat_v1": lambda x, p, n: mirostat_v1(x, 10 * p, x.size + n),
    "mirostat_v2": lambda x, p, n: mirostat_v2(x, 10 * p),
}
LOGITS = hnp.arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.one_of(st.floats(-40, 40, width=32), st.integers(-3, 3).map(float), st.just(-INF)),
).filter(lambda x: bool((x > -INF).any()))


@pytest.mark.parametrize("name", sorted(ANY_FILTER))
@settings(max_examples=40, deadline=None)
@given(logits=LOGITS, p=st.floats(0, 1, width=32), n=st.integers(0, 45))
def test_every_filter(name: str, logits: Logits, p: float, n: int) -> None:
    before = logits.copy()
    after = ANY_FILTER[name](logits, p, n)
    assert np.array_equal(logits, before), "the input is not touched"
    assert after.dtype == np.float32 and after.shape == logits.shape and not np.isnan(after).any()
    was, kept = set(left(before)), left(after)
    assert kept and set(kept) <= was, "no candidate is added, and not all removed"
    if name in ("top_p", "min_p", "typical", "xtc"):
        assert len(kept) >= min(n, len(was))
    if name not in ("temperature", "dynamic_temperature"):
        assert np.array_equal(after[kept], before[kept]), "what stays is not changed"
    order = [i for i in best(before, before.size).tolist() if i in kept]
    assert (np.diff(after[order]) <= 0).all(), "no two candidates change places"
    if name not in ("typical", "xtc"):
        worst_kept = min(before[kept])
        assert all(before[i] <= worst_kept for i in was - set(kept)), "the better candidates stay"


@pytest.mark.parametrize("name", sorted(ANY_FILTER))
def test_nothing_left_stays_nothing(name: str) -> None:
    assert left(ANY_FILTER[name](np.full(4, -INF, np.float32), 0.5, 2)) == []


@settings(max_examples=100, deadline=None)
@given(logits=LOGITS, p=st.floats(0, 1, width=32))
def test_top_p_is_the_smallest_such_set(logits: Logits, p: float) -> None:
    probs = softmax(logits)
    kept = left(top_p(logits, p))
    assert probs[kept].sum() >= p - 1e-6
    assert probs[kept].sum() - probs[kept].min() <= p + 1e-6
