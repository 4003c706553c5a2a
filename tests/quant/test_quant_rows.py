"""What a cache keeps: bytes, shapes, numbers by hand. Its rounding is that of activations, which is held to ggml's."""

import numpy as np
import pytest

from ref_engine.quant.activations import Q8_0_LAYOUT
from ref_engine.quant.rows import (
    as_rows,
    cache_type,
    first_numbers,
    numbers,
    row_bytes,
    row_shape,
    row_type,
    spread_over,
    width,
)
from ref_engine.reference.hadamard import spread

F16, F32 = np.dtype(np.float16), np.dtype(np.float32)


def test_a_block_by_hand() -> None:
    """The largest is 254, so the scale is 2: halves of what there is, ties to even."""
    x = np.zeros((1, 2, 64), np.float32)
    x[0, 1, 32:37] = [254, -254, 3, 5, 1.5]
    rows = as_rows(x, Q8_0_LAYOUT)
    assert rows.shape == (1, 2, 2) and rows.itemsize == 34 and width(rows) == 64
    assert rows["d"][0].tolist() == [[0, 0], [0, 2]]
    assert rows["qs"][0, 1, 1, :6].tolist() == [127, -127, 2, 2, 1, 0]
    got = numbers(rows)
    assert got.dtype == np.float32 and got.shape == x.shape
    assert got[0, 1, 32:38].tolist() == [254, -254, 4, 4, 2, 0]
    assert rows.tobytes()[-34:-28] == np.float16(2).tobytes() + bytes([127, 129, 2, 2])


def test_what_is_not_finite_takes_its_block() -> None:
    x = np.ones((1, 96), np.float32)
    x[0, 3], x[0, 40] = np.inf, np.nan
    got = numbers(as_rows(x, Q8_0_LAYOUT))
    assert np.isnan(got[0, :64]).all() and np.allclose(got[0, 64:], 1, rtol=1e-3)


def test_types_of_rows() -> None:
    """Keys and values are blocks; what else layers remember is float16 beside them."""
    assert row_type("q8_0", "k") == row_type("q8_0", "v") == Q8_0_LAYOUT
    assert row_type("q8_0", "index_k") == row_type("f16", "k") == F16 and row_type("f32", "index_k") == F32
    assert row_shape((2, 96), Q8_0_LAYOUT) == (2, 3) and row_shape((2, 80), F16) == (2, 80)
    assert [row_bytes((2, 96), t, "k") for t in ("f32", "f16", "q8_0")] == [768, 384, 204]
    with pytest.raises(ValueError, match="80 numbers are not whole blocks of 32"):
        row_shape((2, 80), Q8_0_LAYOUT)
    for dtype, type in ((F16, "f16"), (F32, "f32"), (Q8_0_LAYOUT, "q8_0")):
        assert cache_type(np.zeros(2, dtype)) == type
    with pytest.raises(ValueError, match="no cache has rows of int8"):
        cache_type(np.zeros(2, np.int8))


def test_numbers_of_float16_are_what_they_are() -> None:
    x = np.array([[1, 70000, -0.1]], np.float32)
    rows = as_rows(x, F16)
    assert (
        rows.dtype == F16 and rows[0, 1] == np.inf and numbers(rows) is rows and first_numbers(rows, 2).shape == (1, 2)
    )


def test_the_first_numbers() -> None:
    x = np.arange(96, dtype=np.float32)[None]
    rows = as_rows(x, Q8_0_LAYOUT)
    assert np.shares_memory(first_numbers(rows, 64), rows)
    for n in (32, 64, 40):
        assert np.array_equal(numbers(first_numbers(rows, n)), numbers(rows)[:, :n])


def test_over_how_many_features_rows_are_rotated() -> None:
    """Keys of 128, 96, 576 and 64 features; values always over 64."""
    for n_key, over in ((128, 128), (96, 1), (576, 64), (64, 64), (192, 64), (256, 256)):
        assert spread_over("q8_0", n_key, n_key)[0] == over
        assert spread_over("f16", n_key, n_key) == spread_over("f32", n_key, n_key) == (1, 1)
    assert [spread_over("q8_0", 64, n)[1] for n in (32, 64, 128, 96, 320)] == [1, 64, 64, 1, 64]


def test_a_rotation_spreads_one_feature_over_all_and_keeps_products() -> None:
    x = np.zeros((2, 192), np.float32)
    x[0, 70], x[1, 70:80] = 8, 1
    y = spread(x, 64)
    assert np.abs(y[0, 64:128]).tolist() == [1.0] * 64 and not y[0, :64].any() and not y[0, 128:].any()
    np.testing.assert_allclose(y @ y.T, x @ x.T, rtol=1e-6)
    np.testing.assert_allclose(spread(y, 64), x, atol=1e-6)
    assert spread(x, 1) is x
