"""Perplexity by arithmetic. test_model_real.py holds a page of text to llama.cpp's figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ref_engine.errors import RefEngineError
from ref_engine.perplexity import perplexity, token_nlls, windows


class Cache:
    n_past = 0


class Fixed:
    """A stand-in for a model: the logits after token i are row i of a table, whatever came before."""

    def __init__(self, table: Any) -> None:
        self.table = np.array(table, np.float32)
        self.passes: list[int] = []
        self.rooms: list[int] = []

    def new_cache(self, n_ctx: int) -> Cache:
        self.rooms.append(n_ctx)
        return Cache()

    def forward(self, ids: Sequence[int], cache: Cache) -> Any:
        self.passes.append(len(ids))
        return self.table[list(ids)]


def log(*probabilities: float) -> list[float]:
    return [math.log(p) for p in probabilities]


# after 0: 1/2 1/4 1/4, after 1: 1/8 1/8 3/4, after 2: 1/3 each
TABLE = [log(0.5, 0.25, 0.25), log(0.125, 0.125, 0.75), log(1 / 3, 1 / 3, 1 / 3)]


def test_by_hand() -> None:
    """0 1 1 2 0 has the probabilities 1/4, 1/8, 3/4, 1/3: perplexity is the inverse of their geometric mean."""
    found = perplexity(Fixed(TABLE), [0, 1, 1, 2, 0], 100)
    p = (1 / 4) * (1 / 8) * (3 / 4) * (1 / 3)
    assert found.value == pytest.approx(p**-0.25, rel=1e-6)
    assert found.n_tokens == 4
    nlls = [math.log(4), math.log(8), math.log(4 / 3), math.log(3)]
    mean = sum(nlls) / 4
    error = math.sqrt(sum((x - mean) ** 2 for x in nlls) / 3 / 4)
    assert found.nll == pytest.approx(mean, rel=1e-6)
    assert found.nll_error == pytest.approx(error, rel=1e-6)
    assert found.error == pytest.approx(found.value * error, rel=1e-6)


def test_logits_need_not_be_normalised() -> None:
    shifted = Fixed(np.array(TABLE) + 1000)
    assert perplexity(shifted, [0, 1, 1, 2], 100).value == pytest.approx((4 * 8 * 4 / 3) ** (1 / 3), rel=1e-4)


def test_windows() -> None:
    assert windows([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert windows([9, 1, 2, 3, 4, 5], 3, prefix=[9]) == [[9, 1, 2], [9, 3, 4], [9, 5]]  # not doubled
    assert windows([1, 2, 3], 3, prefix=[9]) == [[9, 1, 2], [9, 3]]
    assert windows([9, 1], 100, prefix=[9]) == [[9, 1]]
    for n_ctx, prefix in ((1, [9]), (1, []), (2, [8, 9])):
        with pytest.raises(RefEngineError, match="no room"):
            windows([1, 2, 3], n_ctx, prefix=prefix)


def test_windows_are_run_on_their_own_and_given_tokens_not_scored() -> None:
    """0 1 | 1 2 | 0: the last window has nothing to score."""
    model = Fixed(TABLE)
    found = perplexity(model, [0, 1, 1, 2, 0], 2)
    assert (found.n_tokens, found.n_windows) == (2, 3)
    assert found.value == pytest.approx((1 / 4 * 3 / 4) ** -0.5, rel=1e-6)
    assert model.rooms[:2] == [2, 2]
    skipped = perplexity(Fixed(TABLE), [0, 1, 1, 2, 0], 5, skip=3)  # only 2 after 1 and 0 after 2
    assert skipped.n_tokens == 2
    assert skipped.value == pytest.approx((3 / 4 * 1 / 3) ** -0.5, rel=1e-6)


def test_passes_are_bounded_and_reported() -> None:
    model, seen = Fixed(TABLE), []
    ids = [0, 1, 2] * 100
    found = perplexity(model, ids, 1000, skip=201, advance=lambda n, nll: seen.append((n, math.isnan(nll))))
    assert model.passes == [128, 128, 43]  # 299 tokens have a successor
    assert seen == [(128, True), (128, False), (43, False)]
    assert found.n_tokens == 99
    whole = np.concatenate(list(token_nlls(Fixed(TABLE), ids)))
    assert found.nll == pytest.approx(whole[200:].mean(), rel=1e-12)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(RefEngineError, match="too short"):
        perplexity(Fixed(TABLE), [0], 10)
    with pytest.raises(RefEngineError, match="skip is 0"):
        perplexity(Fixed(TABLE), [0, 1], 10, skip=0)
    with pytest.raises(RefEngineError, match=r"after token 1 .* not finite"):
        perplexity(Fixed([TABLE[0], [math.nan, 0, 0], TABLE[2]]), [0, 1, 2], 10)


def test_an_impossible_token_makes_it_infinite() -> None:
    found = perplexity(Fixed([[-math.inf, 0.0, 0.0]] * 3), [0, 0, 1], 10)
    assert found.value == math.inf
    assert math.isnan(found.nll_error)
