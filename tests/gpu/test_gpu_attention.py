"""The kernels of attention, thread by thread on the host, against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import standin
from emulator import why_not

from ref_engine.gpu import attention
from ref_engine.reference.attention import attend_blas

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]
CLOSE = 1e-11


def drawn(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def kernels(cupy: standin.Cupy, monkeypatch: pytest.MonkeyPatch) -> standin.Cupy:
    """A device that keeps few blocks busy, and no way to compose."""

    def refused(*args: Any, **more: Any) -> None:
        raise AssertionError("composed")

    monkeypatch.setattr(attention, "attend_blas", refused)
    monkeypatch.setattr(attention, "wanted_blocks", lambda: 8)
    return cupy


def check(cupy: standin.Cupy, error: Nmse, q: Any, k: Any, v: Any, first: int, sinks: Any = None, **more: Any) -> None:
    positions = first + np.arange(q.shape[0])
    more = {"scale": 0.3, "window": None, "cap": None, **more}
    want = attend_blas(q, k, v, positions, sinks=sinks, **more)
    there = [None if a is None else cupy.asarray(a) for a in (q, k, v, sinks)]
    got = attention.attend(*there[:3], positions, sinks=there[3], **more)
    assert got.shape == want.shape and got.dtype == np.float32
    by_head = (q.shape[0], q.shape[1], -1)
    assert error(got.get().reshape(by_head), want.reshape(by_head)).max() < CLOSE


@pytest.mark.parametrize("type", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("tokens", "keys", "heads", "kv", "width", "value"),
    [
        (1, 1, 1, 1, 64, 64), (1, 300, 4, 2, 64, 64), (1, 70, 16, 1, 40, 40), (1, 513, 3, 3, 80, 80),
        (3, 3, 8, 1, 128, 128), (5, 131, 6, 2, 33, 7), (2, 65, 4, 1, 256, 256), (1, 64, 2, 1, 20, 300),
        (20, 90, 4, 2, 16, 130), (17, 17, 1, 1, 96, 32), (1, 40, 2, 1, 576, 512), (1, 200, 32, 2, 128, 128),
    ],
)  # fmt: skip
def test_shapes(
    type: Any, tokens: int, keys: int, heads: int, kv: int, width: int, value: int, kernels: Any, error: Nmse
) -> None:
    q, k, v = drawn(tokens, heads, width), drawn(keys, kv, width, seed=2), drawn(keys, kv, value, seed=3)
    check(kernels, error, q, k.astype(type), v.astype(type), keys - tokens)


@pytest.mark.parametrize("window", [1, 5, 64, 100, 1000])
@pytest.mark.parametrize(("tokens", "first"), [(1, 0), (1, 299), (7, 0), (40, 200)])
def test_windows(window: int, tokens: int, first: int, kernels: Any, error: Nmse) -> None:
    """Smaller than a tile and larger, with what a cache holds before them."""
    q, k, v = drawn(tokens, 4, 16), drawn(first + tokens, 2, 16, seed=2), drawn(first + tokens, 2, 24, seed=3)
    check(kernels, error, q, k, v, first, window=window)


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_caps_and_sinks(cap: float | None, sinks: bool, kernels: Any, error: Nmse) -> None:
    for tokens, keys in [(1, 260), (9, 9)]:
        q, k, v = drawn(tokens, 4, 32) * 3, drawn(keys, 2, 32, seed=2), drawn(keys, 2, 32, seed=3)
        given = np.array([-3, 0.5, 40, -200], np.float32) if sinks else None
        check(kernels, error, q, k, v, keys - tokens, given, cap=cap)


def test_large_scores_in_any_order(kernels: Any, error: Nmse) -> None:
    """The largest score comes first, last or in the middle; most weights vanish."""
    for order in (np.s_[:], np.s_[::-1], np.random.default_rng(4).permutation(300)):
        k = np.linspace(-300, 300, 300, dtype=np.float32)[order].reshape(-1, 1, 1)
        check(kernels, error, np.ones((2, 2, 1), np.float32), k, drawn(300, 1, 40, seed=3), 298, scale=1.0)


def test_values_inside_of_keys(kernels: Any, error: Nmse) -> None:
    """As latent attention has them, out of a cache with room for more."""
    q, room = drawn(2, 8, 36), drawn(200, 1, 36, seed=2)
    there = kernels.asarray(room)[:150]
    got = attention.attend(kernels.asarray(q), there, there[..., :30], 148 + np.arange(2), scale=0.2)
    want = attend_blas(q, room[:150], room[:150, :, :30], 148 + np.arange(2), scale=0.2)
    assert error(got.get(), want).max() < CLOSE


def test_what_is_not_seen_does_not_count(kernels: Any) -> None:
    """Rows of a cache behind a token, and before its window, hold anything."""
    q, k, v = drawn(1, 2, 8), drawn(90, 1, 8, seed=2), drawn(90, 1, 8, seed=3)
    want = attend_blas(q, k, v, np.array([80]), scale=0.3, window=20)
    for rows in (np.s_[81:], np.s_[:61]):
        k[rows] = v[rows] = np.nan
    got = attention.attend(*(kernels.asarray(a) for a in (q, k, v)), np.array([80]), scale=0.3, window=20)
    np.testing.assert_allclose(got.get(), want, rtol=1e-4)


@pytest.mark.parametrize("where", ["query", "key"])
def test_nan_stays_in_its_head(where: str, kernels: Any) -> None:
    q, k, v = drawn(2, 4, 8), drawn(300, 2, 8, seed=2), drawn(300, 2, 8, seed=3)
    if where == "query":
        q[1, 2, 3] = np.nan
    else:
        k[299, 1, 0] = np.nan  # seen by the second token alone
    got = attention.attend(*(kernels.asarray(a) for a in (q, k, v)), 298 + np.arange(2), scale=0.3).get()
    bad = np.isnan(got.reshape(2, 4, 8)).all(axis=-1)
    assert bad.tolist() == [[False] * 4, [False, False, True, where == "key"]]
    assert np.isfinite(got.reshape(2, 4, 8)[~bad]).all()


def test_what_no_kernel_knows_is_composed(cupy: standin.Cupy, error: Nmse) -> None:
    """Masks, slopes, a tap that changes something, positions with holes, wide values, other types."""
    positions = np.arange(3) + 4
    q, k, v = drawn(3, 4, 8), drawn(7, 2, 8, seed=2), drawn(7, 2, 8, seed=3)
    seen = np.random.default_rng(1).random((3, 7)) < 0.5
    seen[:, 0] = True
    cases: list[tuple[Any, ...]] = [
        (q, k, v, positions, {"seen": seen}),
        (q, k, v, positions, {"slopes": np.array([0.1, 0.2, 0.3, 0.4], np.float32)}),
        (q, k, v, positions, {"tap": lambda name, x: x * np.float32(0.5)}),
        (q, k, v, np.array([1, 3, 6]), {}),
        (q, k, drawn(7, 2, 600, seed=3), positions, {}),
        (q, k.astype(np.float16), v, positions, {}),
    ]
    for *arrays, where, more in cases:
        want = attend_blas(*arrays, where, scale=0.3, **more)
        on_device = {
            key: cupy.asarray(x) if isinstance(x, np.ndarray) and key == "seen" else x for key, x in more.items()
        }
        got = attention.attend(*(cupy.asarray(a) for a in arrays), where, scale=0.3, **on_device)
        assert error(got.get(), want).max() < CLOSE


def test_keys_are_divided_where_blocks_are_few(cupy: standin.Cupy) -> None:
    assert attention.wanted_blocks() == 264
    assert attention.parts_of(100, 8) == (1, 128)
    assert attention.parts_of(4096, 8) == (32, 128)
    assert attention.parts_of(1 << 17, 8) == (33, 4032)
    assert attention.parts_of(4096, 500) == (1, 4096)
    for keys in (1, 129, 1000, 5000):
        parts, chunk = attention.parts_of(keys, 3)
        assert (parts - 1) * chunk < keys <= parts * chunk
