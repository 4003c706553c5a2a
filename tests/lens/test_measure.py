"""Distances worked out by hand."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ref_engine.lens.measure import distance, max_abs, nmse, row_nmse, ulps, worst_index

F32 = np.float32


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values, F32)


def test_nmse_by_hand() -> None:
    assert nmse(f32(1, 2, 4), f32(1, 2, 3)) == pytest.approx(1 / 14)
    assert nmse(f32(0, 0), f32(0, 0)) == 0
    assert nmse(f32(0, 1), f32(0, 0)) == math.inf


def test_nmse_of_numbers_whose_squares_leave_float64() -> None:
    huge, tiny = np.array([3e200, 4e200]), np.array([3e-200, 4e-200])
    assert nmse(huge * [1, 0], huge) == pytest.approx(16 / 25)
    assert nmse(tiny * [1, 0], tiny) == pytest.approx(16 / 25)


def test_each_row_has_its_own_error() -> None:
    want = np.array([[1, 0], [3, 4], [0, 0]], F32)
    got = np.array([[1, 0], [3, 5], [0, 0]], F32)
    assert row_nmse(got, want) == pytest.approx([0, 1 / 25, 0])
    with pytest.raises(ValueError, match="no rows"):
        row_nmse(np.array(1.0), np.array(1.0))


def test_neighbours_are_one_ulp_apart() -> None:
    one, up = F32(1), np.nextafter(F32(1), F32(2))
    assert ulps(f32(one, up, 1, -1), f32(up, one, 2, 1)).tolist() == [1, 1, 1 << 23, 2 * 0x3F800000]
    smallest = np.nextafter(F32(0), F32(1))
    assert ulps(f32(0.0, smallest, 0), f32(-0.0, -smallest, smallest)).tolist() == [0, 2, 1]
    assert ulps(np.array(1.0), np.array(1.0 + 2**-23)).item() == 1


def test_the_worst_place_is_named() -> None:
    want = np.arange(6, dtype=F32).reshape(2, 3)
    got = want.copy()
    got[1, 0] -= 0.5
    found = distance(got, want)
    assert (found.worst, found.got, found.want, found.max_abs) == ((1, 0), 2.5, 3.0, 0.5)
    assert (found.size, found.clashes, found.same_nonfinite) == (6, 0, 0)
    assert found.median_ulp == 0 and found.max_ulp == 0x400000 - 0x200000
    assert worst_index(got, want) == (1, 0) and max_abs(got, want) == 0.5


def test_agreeing_infinities_are_no_difference() -> None:
    found = distance(f32(-np.inf, np.nan, 1), f32(-np.inf, np.nan, 1))
    assert (found.nmse, found.max_abs, found.max_ulp, found.same_nonfinite, found.clashes) == (0, 0, 0, 2, 0)


@pytest.mark.parametrize("bad", [(np.nan, 1), (1, np.nan), (np.inf, -np.inf), (np.inf, 1), (np.nan, np.inf)])
def test_a_clash_of_infinities_is_infinite(bad: tuple[float, float]) -> None:
    found = distance(f32(5, bad[0]), f32(1, bad[1]))
    assert (found.nmse, found.max_abs, found.max_ulp, found.clashes) == (math.inf, math.inf, math.inf, 1)
    assert found.worst == (1,)


def test_float64_that_float32_cannot_hold_is_far_away() -> None:
    assert ulps(np.array([1e300]), np.array([1.0])).tolist() == [math.inf]


def test_integers_count_as_their_values() -> None:
    found = distance(np.array([[3, 7]], np.int32), np.array([[3, 5]], np.int64))
    assert (found.max_abs, found.worst) == (2.0, (0, 1))


def test_nothing_differs_from_nothing_by_nothing() -> None:
    found = distance(np.empty((0, 3)), np.empty((0, 3)))
    assert (found.size, found.nmse, found.worst) == (0, 0.0, None)


def test_shapes_must_be_the_same() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and \(1, 2\)"):
        distance(f32(1, 2), f32(1, 2)[None])
