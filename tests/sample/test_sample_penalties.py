"""Biases, repetition penalties and DRY by hand."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ref_engine.sample import dry, dry_breakers, logit_bias, penalties
from ref_engine.sample.penalties import repeat_lengths, tokens_since_breaker

INF = math.inf


def test_logit_bias_adds_and_bans() -> None:
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    assert logit_bias(logits, {0: 2.5, 2: -INF}).tolist() == [3.5, 2.0, -INF]
    assert logits.tolist() == [1.0, 2.0, 3.0]
    assert logit_bias(logits, {}) is logits


@pytest.mark.parametrize(
    ("last", "repeat", "frequency", "presence", "expected"),
    [
        # a positive logit is divided, a negative one multiplied, zero stays
        ([0, 1, 2], 2.0, 0.0, 0.0, [2.0, -4.0, 0.0, 1.0]),
        ([0, 0, 0], 2.0, 0.0, 0.0, [2.0, -2.0, 0.0, 1.0]),  # once, however often it occurs
        ([0, 0, 3], 1.0, 0.5, 0.0, [3.0, -2.0, 0.0, 0.5]),  # for each occurrence
        ([0, 0, 3], 1.0, 0.0, 0.25, [3.75, -2.0, 0.0, 0.75]),  # once
        ([0, 0, 1], 4.0, 0.5, 0.25, [1.0 - 1.25, -8.0 - 0.75, 0.0, 1.0]),  # first the factor, then the rest
        ([0, 1], 0.5, 0.0, 0.0, [8.0, -1.0, 0.0, 1.0]),  # below 1 repetition is rewarded
        ([3], 1.0, -1.0, 0.0, [4.0, -2.0, 0.0, 2.0]),
        ([], 2.0, 1.0, 1.0, [4.0, -2.0, 0.0, 1.0]),
    ],
)
def test_penalties(last: list[int], repeat: float, frequency: float, presence: float, expected: list[float]) -> None:
    logits = np.array([4.0, -2.0, 0.0, 1.0], np.float32)
    assert penalties(logits, last, repeat, frequency, presence).tolist() == expected
    assert logits.tolist() == [4.0, -2.0, 0.0, 1.0]


def test_penalties_leave_a_removed_candidate_removed() -> None:
    assert penalties(np.array([-INF, 1.0], np.float32), [0], 2.0, -1.0, 0.0).tolist() == [-INF, 1.0]


def test_penalties_switched_off_return_the_input() -> None:
    logits = np.zeros(2, np.float32)
    assert penalties(logits, [0, 1]) is logits


A, B, C, Y = range(4)


def test_repeat_lengths_of_the_example() -> None:
    text = [A, B, C, C, B, C, Y, A, B, C]
    assert repeat_lengths(text) == [0, 0, 3, 1, 0, 2, 0, 0, 0]


@given(st.lists(st.integers(0, 2), max_size=40))
def test_repeat_lengths_against_the_definition(tokens: list[int]) -> None:
    for i, length in enumerate(repeat_lengths(tokens)):
        same = 0
        while same <= i and tokens[i - same] == tokens[-1 - same]:
            same += 1
        assert length == same


def test_repeat_lengths_takes_few_steps() -> None:
    """Counted, not timed: comparisons of a text that a quadratic search would compare 8 million times."""

    class Counted(int):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return isinstance(other, int) and int(self) == int(other)

        __hash__ = int.__hash__

    repeat_lengths([Counted(0)] * 4000)
    assert Counted.compared <= 2 * 4000
    Counted.compared = 0
    draw = random.Random(1)
    repeat_lengths([Counted(draw.randrange(2)) for _ in range(4000)])
    assert Counted.compared <= 2 * 4000


@pytest.mark.parametrize(
    ("last", "allowed", "breakers", "expected"),
    [
        ([0, 1], 2, {}, [0, 0, 0, 0]),  # too short to repeat anything
        ([0, 1, 2, 0, 1], 2, {}, [0, 0, -3 * 1.5**0, 0]),  # "0 1" came before 2
        ([0, 1, 2, 0, 1], 1, {}, [0, 0, -3 * 1.5**1, 0]),
        ([0, 1, 2, 0, 1], 3, {}, [0, 0, 0, 0]),
        ([3, 0, 1, 2, 3, 0, 1], 2, {}, [0, 0, -3 * 1.5**1, 0]),  # "3 0 1" is three long
        ([3, 0, 1, 2, 3, 0, 1], 2, {3: ((),)}, [0, 0, -3 * 1.5**0, 0]),  # only "0 1" since the breaker
        ([3, 0, 1, 2, 3, 0, 1], 2, {0: ((),)}, [0, 0, 0, 0]),
        ([3, 0, 1, 2, 3, 0, 1], 2, {2: ((),)}, [0, 0, 0, 0]),  # the follower itself breaks
        ([3, 0, 1, 2, 3, 0, 1], 2, {2: ((1,),)}, [0, 0, -4.5, 0]),  # with "2 1" that only starts a breaker
        ([0, 1, 2, 0, 1, 3, 0, 1], 2, {}, [0, 0, -3, -3]),  # both followers
        # 2 followed "1" and, longer, "0 1": the longest counts
        ([1, 2, 0, 1, 2, 3, 0, 1], 1, {}, [0, 0, -4.5, 0]),
    ],
)
def test_dry(
    last: list[int], allowed: int, breakers: dict[int, tuple[tuple[int, ...], ...]], expected: list[float]
) -> None:
    logits = np.zeros(4, np.float32)
    after = dry(logits, last, multiplier=3.0, base=1.5, allowed_length=allowed, breakers=breakers)
    assert after.tolist() == expected
    assert not logits.any()


@pytest.mark.parametrize(("multiplier", "base"), [(0.0, 2.0), (1.0, 0.99)])
def test_dry_switched_off(multiplier: float, base: float) -> None:
    logits = np.zeros(2, np.float32)
    assert dry(logits, [0, 1, 0, 1, 0], multiplier, base, 1, {}) is logits


def test_dry_penalty_stays_a_number() -> None:
    after = dry(np.zeros(2, np.float32), [0] * 500, 5.0, 10.0, 1, {})
    assert after.tolist() == [-3.4028234663852886e38, 0.0]


def test_tokens_since_breaker_takes_the_longest_that_fits() -> None:
    breakers = {5: ((), (6, 7), (6, 8))}
    assert tokens_since_breaker([1, 5, 6, 7, 2, 3], breakers) == 2  # 5 6 7, not 5 alone
    assert tokens_since_breaker([1, 5, 6, 9, 2, 3], breakers) == 4
    assert tokens_since_breaker([5, 6], breakers) == 1
    assert tokens_since_breaker([1, 2, 3], breakers) == 3
    assert tokens_since_breaker([], breakers) == 0


def test_dry_breakers_in_and_across_tokens() -> None:
    pieces = [b"a", b"x\ny", b"the e", b"nd", b"end", b"the end.", b" th", b""]
    letters = {"he end": [10], "e end": [11], " end": [12], "end": [4], "nd": [3], "d": [13]}
    found = dry_breakers(["\n", "the end"], pieces, lambda text: letters[text])
    assert found == {
        1: ((),),  # contains the newline
        2: ((3,),),  # ends with "the e", the rest is "nd"
        5: ((),),
        6: ((11,),),  # ends with "th"
    }


def test_dry_breakers_are_cut_as_llama_cpp_cuts_them() -> None:
    long = "x" * 39 + "ab"
    found = dry_breakers([long], [b"x" * 39 + b"a", b"wx"], lambda text: list(range(len(text))))
    assert found[0] == ((),)  # 40 bytes are enough
    assert found[1] == (tuple(range(20)),)  # and 20 tokens of the rest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(0, 3), st.integers(0, 3))
def test_dry_against_the_definition(tokens: list[int], allowed: int, breaker: int) -> None:
    """Every earlier occurrence of an ending, tried one by one."""
    n = len(tokens)
    since = tokens[::-1].index(breaker) if breaker in tokens else n
    worst: dict[int, int] = {}
    for length in range(allowed, min(since, n) + 1):
        for start in range(1 if length == 0 else 0, n - length):
            if tokens[start : start + length] == tokens[n - length :]:
                worst[tokens[start + length]] = length
    expected = [0.0] * 4
    if n > allowed:
        for token, length in worst.items():
            expected[token] = 0.0 if token == breaker else -(2.0 ** (length - allowed))
    after = dry(np.zeros(4, np.float32), tokens, 1.0, 2.0, allowed, {breaker: ((),)})
    assert after.tolist() == expected
