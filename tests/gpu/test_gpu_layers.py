"""Layers by kernels, thread by thread on the host: what the NumPy definition gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import standin
from emulator import why_not

from ref_engine.gpu import attention, layers
from ref_engine.reference import ffn
from ref_engine.reference.attention import attend_blas, full_mask
from ref_engine.reference.norm import rms_norm_exact
from ref_engine.reference.rope import rope

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 7), (3, 576), (2, 5, 33), (4, 1)])
def test_rms_norm(shape: tuple[int, ...], cupy: standin.Cupy, error: Nmse) -> None:
    x = draw(1, *shape) * np.float32(1e-3)
    w = draw(2, shape[-1])
    for weight in (None, w):
        got = layers.rms_norm(cupy.asarray(x), None if weight is None else cupy.asarray(weight), 1e-6)
        assert error(got.get(), rms_norm_exact(x, weight, 1e-6)).max() < 1e-14


def test_rms_norm_of_extremes(cupy: standin.Cupy) -> None:
    """Zeros, numbers whose squares overflow float32, and a NaN, which stays in its row."""
    x = draw(1, 4, 64)
    x[0], x[1], x[2, 5] = 0, x[1] * np.float32(1e30), np.nan
    got = layers.rms_norm(cupy.asarray(x), None, 1e-5).get()
    want = rms_norm_exact(x, None, 1e-5)
    np.testing.assert_allclose(got[[0, 1, 3]], want[[0, 1, 3]], rtol=3e-7)
    assert np.isnan(got[2]).all()


@pytest.mark.parametrize("pairing", ["adjacent", "halves"])
@pytest.mark.parametrize(("T", "H", "Hd", "n"), [(3, 2, 64, 32), (1, 5, 80, 20), (2, 1, 130, 1), (2, 3, 300, 100)])
def test_rope(T: int, H: int, Hd: int, n: int, pairing: Any, cupy: standin.Cupy, error: Nmse) -> None:
    """Bits, where numbers lie apart too, as queries behind their gates do."""
    x, angle = draw(1, T, H, 2 * Hd), draw(2, T, n)
    cos, sin = np.cos(angle), np.sin(angle)
    put = cupy.asarray
    for part in (np.s_[..., :Hd], np.s_[..., Hd:]):
        got = layers.rope(put(x)[part], put(cos), put(sin), pairing).get()
        np.testing.assert_array_equal(got, rope(x[part], cos, sin, pairing))
    turned = np.ascontiguousarray(x.transpose(2, 1, 0))  # features far apart
    got = layers.rope(put(turned).transpose(2, 1, 0), put(cos), put(sin), pairing).get()
    np.testing.assert_array_equal(got, rope(x, cos, sin, pairing))


@pytest.mark.parametrize("name", [*ffn.ACTIVATIONS, "swiglu_oai", "situ"])
def test_activations(name: str, cupy: standin.Cupy, error: Nmse) -> None:
    gate, up = draw(1, 3, 171) * np.float32(4), draw(2, 3, 171)
    gate[0, :6] = 0.0, -0.0, 90, -90, 1e15, -1e15
    constants = {"swiglu_oai": (1.702, 7.0), "situ": (2.0, 3.0)}.get(name, ())
    got = layers.glu(cupy.asarray(gate), cupy.asarray(up), name, constants).get()
    assert error(got[1:], ffn.glu(gate, up, name, constants)[1:]).max() < 1e-12
    np.testing.assert_allclose(got, ffn.glu(gate, up, name, constants), rtol=1e-4, atol=1e-30)
    if not constants:
        want = ffn.activation(gate, name)
        np.testing.assert_allclose(layers.activation(cupy.asarray(gate), name).get(), want, rtol=1e-4, atol=1e-30)


CASES = {
    "one key": dict(T=1, H=2, K=1, Hd=16, Vd=16, past=0),
    "many queries of a head": dict(T=3, H=13, K=1, Hd=40, Vd=24, past=70),
    "parts": dict(T=2, H=8, K=4, Hd=64, Vd=64, past=700),
    "window": dict(T=5, H=4, K=2, Hd=32, Vd=32, past=300, window=131),
    "small window": dict(T=70, H=2, K=2, Hd=16, Vd=16, past=3, window=2),
    "cap and sinks": dict(T=3, H=4, K=2, Hd=32, Vd=48, past=260, cap=3.0, sinks=True),
    "wide": dict(T=1, H=16, K=1, Hd=576, Vd=512, past=130),
}


@pytest.mark.parametrize("kind", ["f32", "f16"])
@pytest.mark.parametrize("name", CASES)
def test_attention(name: str, kind: str, cupy: standin.Cupy, error: Nmse) -> None:
    c: dict[str, Any] = dict(CASES[name])
    T, H, K, Hd, Vd, S = c["T"], c["H"], c["K"], c["Hd"], c["Vd"], c["past"] + c["T"]
    dtype = np.float16 if kind == "f16" else np.float32
    q, k, v = draw(1, T, H, Hd) * np.float32(3), draw(2, S, K, Hd).astype(dtype), draw(3, S, K, Vd).astype(dtype)
    sinks = draw(4, H) if c.get("sinks") else None
    given = {"scale": Hd**-0.5, "window": c.get("window"), "cap": c.get("cap")}
    positions = np.arange(c["past"], S)
    want = attend_blas(q, k, v, positions, sinks=sinks, **given)
    put = cupy.asarray
    got = attention.attend(put(q), put(k), put(v), positions, sinks=None if sinks is None else put(sinks), **given)
    assert got.shape == want.shape and got.dtype == np.float32
    assert error(got.get(), want).max() < 1e-12


def test_attention_that_is_composed(cupy: standin.Cupy, error: Nmse) -> None:
    """Another mask, slopes, positions that do not follow one another, and a tap."""
    q, k, v = draw(1, 3, 4, 16), draw(2, 9, 2, 16), draw(3, 9, 2, 16)
    put, positions = cupy.asarray, np.array([2, 5, 8])
    seen: list[str] = []

    def tap(name: str, x: Any) -> Any:
        seen.append(name)
        return x

    slopes = np.array([0.5, 0.25, 1, 2], np.float32)
    for given in ({}, {"seen": full_mask(positions, 9, None)}, {"slopes": slopes}, {"tap": tap}):
        want = attend_blas(q, k, v, positions, scale=0.25, **given)
        got = attention.attend(put(q), put(k), put(v), positions, scale=0.25, **given)
        assert error(got.get(), want).max() < 1e-13
    assert seen == ["kq", "kq_soft_max", "kqv"] * 2


def test_a_nan_stays_with_its_token(cupy: standin.Cupy) -> None:
    """A key of a later token reaches no earlier one."""
    q, k, v = draw(1, 4, 2, 16), draw(2, 140, 2, 16), draw(3, 140, 2, 16)
    k[138, 1, 3], v[139, 0, 2] = np.nan, np.inf
    put = cupy.asarray
    got = attention.attend(put(q), put(k), put(v), np.arange(136, 140), scale=0.25).get().reshape(4, 2, 16)
    assert np.isfinite(got[:2]).all() and np.isnan(got[2, 1]).all() and np.isfinite(got[2, 0]).all()
    assert np.isinf(got[3, 0, 2]) and np.isnan(got[3, 1]).all()
