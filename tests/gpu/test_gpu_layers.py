"""Kernels for norms, rotation and activations, thread by thread on the host, against float64 and the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin
from emulator import Kernel, why_not

import ref_engine
from ref_engine.gpu import experts, layers, products
from ref_engine.gpu.packed import has_kernel
from ref_engine.reference import attention, ffn, rope

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]
CLOSE = 1e-12
SHAPES = [(1, 1), (3, 7), (2, 3, 40), (5, 33), (1, 300), (2, 1025), (1, 2, 3, 16), (9, 128)]


def drawn(shape: tuple[int, ...], seed: int = 1, size: float = 1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * size).astype(np.float32)


def true_rms(x: np.ndarray, weight: np.ndarray | None, eps: float) -> np.ndarray:
    x = x.astype(np.float64)
    y = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return y if weight is None else y * weight


def true_layer(x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float) -> np.ndarray:
    x = x.astype(np.float64)
    x = x - x.mean(axis=-1, keepdims=True)
    y = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_norms(shape: tuple[int, ...], cupy: standin.Cupy, error: Nmse) -> None:
    x, weight, bias = drawn(shape), drawn(shape[-1:], 2), drawn(shape[-1:], 3)
    for w, b in [(weight, bias), (weight, None), (None, bias), (None, None)]:
        there, on_w, on_b = (None if a is None else cupy.asarray(a) for a in (x, w, b))
        got = layers.rms_norm(there, on_w, 1e-6)
        assert got.shape == shape and got.dtype == np.float32
        assert error(got.get(), true_rms(x, w, 1e-6)).max() < CLOSE
        if shape[-1] > 1:
            assert error(layers.layer_norm(there, on_w, on_b, 1e-5).get(), true_layer(x, w, b, 1e-5)).max() < CLOSE


def test_a_weight_for_each_group(cupy: standin.Cupy, error: Nmse) -> None:
    """Of which a kernel knows nothing: as norms of states by group have them."""
    x, weight = drawn((3, 4, 20)), drawn((4, 20), 2)
    got = layers.rms_norm(cupy.asarray(x), cupy.asarray(weight), 1e-6)
    assert error(got.get(), true_rms(x, weight, 1e-6)).max() < CLOSE
    got = layers.layer_norm(cupy.asarray(x), cupy.asarray(weight), None, 1e-6)
    assert error(got.get(), true_layer(x, weight, None, 1e-6)).max() < CLOSE


def test_rows_beyond_float32(cupy: standin.Cupy, error: Nmse) -> None:
    """Squares that overflow or vanish, zeros, a mean far from zero; NaN and infinity stay in their rows."""
    x = np.stack([
        drawn((65,), 1, 1e30), drawn((65,), 2, 1e-30), np.zeros(65), 1e6 + drawn((65,), 3), np.full(65, 3e38),
        drawn((65,), 4), drawn((65,), 5),
    ]).astype(np.float32)  # fmt: skip
    x[5, 3], x[6, 64] = np.nan, np.inf
    for got, truth in [
        (layers.rms_norm(cupy.asarray(x), None, 1e-6).get(), lambda r: true_rms(r, None, 1e-6)),
        (layers.layer_norm(cupy.asarray(x), None, None, 1e-6).get(), lambda r: true_layer(r, None, None, 1e-6)),
    ]:
        want = truth(x[:5].astype(np.float64))
        for row in (0, 1, 3):
            assert error(got[row], want[row]) < CLOSE, row
        np.testing.assert_allclose(got[[2, 4]], want[[2, 4]], rtol=1e-6)
        assert np.isnan(got[5]).all() and np.isnan(got[6, 64])


def test_parts_of_other_arrays(cupy: standin.Cupy, error: Nmse) -> None:
    """Heads out of a fused product, halves of a gate, a transposed array."""
    whole = drawn((3, 4, 50))
    there = cupy.asarray(whole)
    for part in (np.s_[:, 1:3, 7:40], np.s_[:, 2], np.s_[1], np.s_[..., ::2]):
        assert error(layers.rms_norm(there[part], None, 0.0).get(), true_rms(whole[part], None, 0)).max() < CLOSE
    turned = there.transpose(2, 1, 0)
    assert error(layers.rms_norm(turned, None, 0.0).get(), true_rms(whole.T, None, 0)).max() < CLOSE
    gate, up = np.split(whole[:, 0], 2, axis=-1)
    got = layers.glu(*np.split(there[:, 0], 2, axis=-1), "gelu")
    assert error(got.get(), ffn.glu(gate, up, "gelu")).max() < CLOSE


@pytest.mark.parametrize("pairing", ["adjacent", "halves"])
@pytest.mark.parametrize(("shape", "rotated"), [((1, 1, 2), 2), ((3, 5, 8), 8), ((2, 3, 80), 32), ((4, 1, 13), 6)])
def test_rotation(pairing: Any, shape: tuple[int, ...], rotated: int, cupy: standin.Cupy, error: Nmse) -> None:
    x, angle = drawn(shape), drawn((shape[0], rotated // 2), 2, 100)
    tables = np.cos(angle), np.sin(angle)
    got = layers.rope(cupy.asarray(x), *(cupy.asarray(t) for t in tables), pairing)
    want = rope.rope(x.astype(np.float64), *tables, pairing)
    assert got.shape == shape
    assert error(got.get(), want).max() < CLOSE
    np.testing.assert_array_equal(got.get()[..., rotated:], x[..., rotated:])
    wide = np.concatenate([x, x], axis=-1)
    part = layers.rope(cupy.asarray(wide)[..., : shape[-1]], *(cupy.asarray(t) for t in tables), pairing)
    np.testing.assert_array_equal(part.get(), got.get())


UNITS = {
    **{name: () for name in ffn.ACTIVATIONS},
    "swiglu_oai": (1.702, 7.0),
    "swiglu_clamp": (1.5,),
    "swiglu_limit": (0.7,),
    "situ": (2.0, 1.5),
}
ODD = np.array([0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 2e-38, 100, -100, 88.8, -88.8], np.float32)


def test_all_units_are_known() -> None:
    assert set(UNITS) == set(ffn.ACTIVATIONS) | set(ffn.UNITS) == set(layers._KINDS) - {"soft_cap"}


@pytest.mark.parametrize(("name", "constants"), [*UNITS.items(), ("situ", (2.0, 0.0))], ids=str)
def test_gated_units(name: str, constants: tuple[float, ...], cupy: standin.Cupy, error: Nmse) -> None:
    gate, up = drawn((3, 43), 1, 3), drawn((3, 43), 2, 3)
    got = layers.glu(cupy.asarray(gate), cupy.asarray(up), name, constants).get()
    assert error(got, ffn.glu(gate, up, name, constants)).max() < CLOSE
    gate, up = (a.reshape(1, -1) for a in np.meshgrid(ODD, ODD))
    with np.errstate(all="ignore"):
        want = ffn.glu(gate, up, name, constants)
        act = np.abs(ffn.glu(gate, np.ones_like(up), name, constants))
    denormal = (act > 0) & (act < np.finfo(np.float32).tiny)  # zero on the device; times infinity that is NaN
    got = layers.glu(cupy.asarray(gate), cupy.asarray(up), name, constants).get()
    got, want = got[~denormal], want[~denormal]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("name", [*ffn.ACTIVATIONS, "soft_cap"])
def test_activations(name: str, cupy: standin.Cupy, error: Nmse) -> None:
    def by(run: Any, x: Any) -> Any:
        return run.soft_cap(x, 30.0) if name == "soft_cap" else run.activation(x, name)

    reference = attention if name == "soft_cap" else ffn
    for shape in [(5,), (2, 130), (2, 3, 9)]:
        x = drawn(shape, 1, 4)
        assert error(by(layers, cupy.asarray(x)).get(), by(reference, x)).max() < CLOSE
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(by(layers, cupy.asarray(ODD)).get(), by(reference, ODD), rtol=1e-5, atol=1e-37)


def test_unknown_names_and_other_types(cupy: standin.Cupy) -> None:
    x = cupy.asarray(drawn((1, 4)))
    for name in ("swish", "soft_cap"):
        with pytest.raises(KeyError, match=name):
            layers.glu(x, x, name)
        with pytest.raises(KeyError, match=name):
            layers.activation(x, name)
    with pytest.raises(TypeError):
        layers.glu(x, x, "situ", (1.0,))
    assert layers.rms_norm(x.astype(np.float64), None, 1e-6).dtype == np.float32
    assert layers.rms_norm(x[:0], None, 1e-6).shape == (0, 4)


def counted(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, key: Callable[..., str], count: Counter[str]
) -> None:
    run = getattr(owner, name)

    def seen(*args: Any, **more: Any) -> Any:
        count[key(*args)] += 1
        return run(*args, **more)

    monkeypatch.setattr(owner, name, seen)


def test_launches_of_a_token(golden: Path, cupy: standin.Cupy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/gpu.md says of a layer: in a mixture of four layers, one copy to the host, that of the stream."""
    for user in (products, experts):  # matrices of any size
        monkeypatch.setattr(user, "has_kernel", has_kernel)
    model = ref_engine.load(golden / "models" / "tiny-moe.gguf", backend="cupy", activations="f32")
    cache = model.new_cache()
    model.forward([1, 2, 3], cache)
    model.forward([4], cache)
    count: Counter[str] = Counter()
    counted(monkeypatch, Kernel, "__call__", lambda kernel, *args: kernel.name.split("_1")[0], count)
    counted(monkeypatch, standin.array, "by_ufunc", lambda name, *args: name, count)
    counted(monkeypatch, standin.Array, "get", lambda *args: "copy to host", count)
    counted(monkeypatch, standin.Array, "__setitem__", lambda *args: "store", count)
    model.forward([5], cache)
    each = {name: n / 4 for name, n in count.items() if n >= 4}
    assert each == {
        "matvec_f32": 8.25, "rms_norm": 4.25, "rope": 2, "store": 2, "attend_4": 1, "route": 1, "glu": 1,
        "weighted_sum": 1, "count_experts": 1, "add": 2,
    }  # fmt: skip
    assert count["copy to host"] == 1
