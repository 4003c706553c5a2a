"""The stand-in for CuPy refuses what CuPy refuses: otherwise the tests that run on it would prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import standin


def arrays(cupy: standin.Cupy) -> tuple[Any, Any]:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    return cupy.asarray(x), x


@pytest.mark.parametrize(
    ("name", "do"),
    [
        ("a sum with a NumPy array", lambda x, h: x + h),
        ("a sum with it in front", lambda x, h: h + x),
        ("a NumPy array as a condition", lambda x, h: np.where(h > 2, x, x)),
        ("joining with a NumPy array", lambda x, h: np.concatenate([x, h])),
        ("becoming a NumPy array", lambda x, h: np.asarray(x)),
        ("np.ascontiguousarray without like", lambda x, h: np.ascontiguousarray(x)),
        ("a NumPy array put into a part", lambda x, h: x.__setitem__(0, h[0])),
        ("a function that CuPy has not", lambda x, h: np.insert(x, 1, x)),
        ("an argument that CuPy has not", lambda x, h: np.add(x, x, where=x > 2)),
        ("np.ones with like, which sends a device along", lambda x, h: np.ones(3, like=x)),
        ("sorting by another method", lambda x, h: np.argsort(x, kind="quicksort")),
        ("reducing by a ufunc's method", lambda x, h: np.add.accumulate(x)),
        ("a shape that is an array", lambda x, h: np.zeros((x.sum(),), like=x)),
        ("an array as a list's index", lambda x, h: [1, 2, 3][x[0, 0]]),
        ("the product with a NumPy array", lambda x, h: x @ h.T),
        ("in place with a NumPy array", lambda x, h: x.__iadd__(h)),
        ("setting another type", lambda x, h: x.set(h.astype(np.float64))),
    ],
)
def test_it_refuses(name: str, do: Callable[[Any, Any], Any], cupy: standin.Cupy) -> None:
    with pytest.raises((TypeError, ValueError)):
        do(*arrays(cupy))


@pytest.mark.parametrize(
    "do",
    [
        lambda x: np.float32(1) / (x + 1),
        lambda x: np.where(x > 2, x, np.float32(-np.inf)),
        lambda x: np.concatenate([x, x], axis=-1),
        lambda x: np.zeros((2, 2), np.float32, like=x),
        lambda x: np.asarray(np.ones(3, np.bool_), like=x),
        lambda x: x[np.array([1, 0])],
        lambda x: np.split(x, np.array([1]), axis=-1)[1],
        lambda x: np.take_along_axis(x, np.argsort(-x, axis=-1, kind="stable")[:, :2], axis=-1),
        lambda x: x @ x.T,
        lambda x: np.frexp(x)[1],
        lambda x: np.pad(x, [(0, 0), (0, 2)]),
    ],
)
def test_it_computes_what_numpy_does(do: Callable[[Any], Any], cupy: standin.Cupy) -> None:
    x, h = arrays(cupy)
    got, want = do(x), do(h)
    assert isinstance(got, standin.Array)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got.get(), want)


def test_a_single_number_stays_on_the_device(cupy: standin.Cupy) -> None:
    x, _ = arrays(cupy)
    assert isinstance(x.max(), standin.Array) and isinstance(x[0, 0], standin.Array)
    assert int(x.max()) == 5 and float(x[0, 1]) == 1.0


def test_memory_is_counted_by_buffers_and_runs_out(cupy: standin.Cupy) -> None:
    pool = cupy.get_default_memory_pool()
    x = cupy.zeros((10, 100), np.float32)
    assert pool.used_bytes() == 4000
    part = x[2:5].T
    assert pool.used_bytes() == 4000
    pool.set_limit(size=6000)
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match="Out of memory allocating 4,000 bytes"):
        x + np.float32(1)
    del x, part
    assert pool.used_bytes() == 0 and pool.total_bytes() == 4000
    pool.free_all_blocks()
    assert pool.total_bytes() == 0
