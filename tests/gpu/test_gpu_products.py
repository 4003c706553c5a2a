"""Kernels for products, thread by thread on the host: the values, and the products, of the NumPy definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import standin
from emulator import why_not

from ref_engine.files.types import GGMLType
from ref_engine.gpu import products
from ref_engine.gpu.device import Device
from ref_engine.gpu.ops import embed_there
from ref_engine.gpu.packed import BLOCKS, PLAIN, packed
from ref_engine.gpu.products import Products, rounded, values
from ref_engine.place import HOST
from ref_engine.quant.activations import ROUNDINGS
from ref_engine.quant.types import BLOCK_TYPES, PLAIN_TYPES, dequantize
from ref_engine.reference.embed import embed
from ref_engine.reference.linear import by_head, linear_f32, linear_q8
from ref_engine.weights import Weight

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]
CLOSE = 1e-11  # sums in another order; a single number may be the small rest of large ones


@pytest.fixture
def place(cupy: standin.Cupy) -> Device:
    return Device(cupy, lambda name: True)


def drawn(type: GGMLType, shape: tuple[int, ...], seed: int = 1) -> Weight:
    """Random bits, with scales around one."""
    rng = np.random.default_rng(seed)
    if type in PLAIN_TYPES:
        data = PLAIN_TYPES[type].from_f32(rng.standard_normal(shape).astype(np.float32))
        return Weight("w", type, shape, data.reshape(-1).view(np.uint8))
    block = BLOCK_TYPES[type]
    raw = rng.integers(0, 256, (*shape[:-1], shape[-1] // block.size, block.layout.itemsize), np.uint8)
    blocks = raw.view(block.layout)[..., 0]
    for name in {"d", "m", "dmin"} & set(block.layout.names or ()):
        blocks[name] = rng.standard_normal(blocks.shape).astype(np.float16)
    if "e" in (block.layout.names or ()):
        blocks["e"] = rng.integers(120, 132, blocks.shape)
    return Weight("w", type, shape, raw.reshape(-1))


def x_of(tokens: int, columns: int, seed: int = 2) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((tokens, columns)).astype(np.float32)
    return x * np.float32(10) ** (np.arange(tokens, dtype=np.float32)[:, None] % 4)


def there(weight: Weight, place: Device) -> Weight:
    return replace(weight, place=place, kept={})


@pytest.mark.parametrize("type", BLOCKS, ids=lambda t: t.name)
def test_values_have_the_bits(type: GGMLType, place: Device) -> None:
    """Any bytes at all, infinite and NaN scales too."""
    size = BLOCK_TYPES[type].layout.itemsize
    data = np.random.default_rng(type.value).integers(0, 256, (7, 2 * size), np.uint8)
    columns = 2 * BLOCK_TYPES[type].size
    w = packed(replace(Weight("w", type, (7, columns), data.reshape(-1)), place=place))
    want = dequantize(data, type)
    got = values(w, 0, 7, np.float32).get()
    np.testing.assert_array_equal(got, want)
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()
    half = values(w, 2, 3, np.float16).get()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, want[2:5].astype(np.float16))


def test_every_power_of_two(place: Device) -> None:
    """MXFP4 scales from 2^-128 to 2^127. The two denormal ones are zero, as CuPy has kernels compiled."""
    data = np.random.default_rng(1).integers(0, 256, (256, 17), np.uint8)
    data[:, 0] = np.arange(256)
    w = packed(replace(Weight("w", GGMLType.MXFP4, (256, 32), data.reshape(-1)), place=place))
    want = dequantize(data, GGMLType.MXFP4)
    want[:2] = 0
    np.testing.assert_array_equal(values(w, 0, 256, np.float32).get(), want)


@pytest.mark.parametrize("kind", ["q8_0", "q8_1", "q8_k"])
def test_rounding_has_the_bits(kind: str, cupy: standin.Cupy) -> None:
    """Zeros, equal numbers, ties, denormals, infinite ones and NaN among them."""
    rng = np.random.default_rng(3)
    n = 512
    x = np.stack([
        rng.standard_normal(n), np.zeros(n), np.full(n, -3.0), rng.choice([-1.0, 1.0], n),
        rng.integers(-254, 255, n) / 2, rng.standard_normal(n) * 1e-37, rng.standard_normal(n) * 1e-41,
        rng.uniform(-3e38, 3e38, n), np.where(rng.random(n) < 0.01, np.inf, 1.0),
        np.where(rng.random(n) < 0.01, np.nan, 2.0),
        rng.standard_normal(n) * 70000,
    ]).astype(np.float32)  # fmt: skip
    want = ROUNDINGS[kind](x)
    q, d, sums = rounded(cupy.asarray(x), kind).arguments
    np.testing.assert_array_equal(q.get().reshape(want.q.shape), want.q)
    scales = d.get()
    np.testing.assert_array_equal(scales, np.repeat(want.d, scales.shape[1] // want.d.shape[1], axis=1))
    if kind == "q8_1":
        s = sums.get()
        found = np.isfinite(want.d)
        np.testing.assert_array_equal((s[:, ::2] + s[:, 1::2])[found], want.s[found])
    if kind == "q8_k":
        with np.errstate(invalid="ignore", over="ignore"):
            np.testing.assert_array_equal(sums.get().reshape(want.sums.shape), want.d[..., None] * want.sums)


@pytest.mark.parametrize("type", [*BLOCKS, *PLAIN], ids=lambda t: t.name)
@pytest.mark.parametrize("mode", ["f32", "q8"])
def test_products(mode: str, type: GGMLType, place: Device, error: Nmse) -> None:
    truth = linear_f32 if mode == "f32" else linear_q8
    maps = Products(mode)
    block = BLOCK_TYPES[type].size if type in BLOCK_TYPES else 36
    for tokens, rows, blocks in [(1, 5, 5), (2, 1, 1), (3, 9, 2), (7, 3, 3)]:
        weight = drawn(type, (rows, blocks * block), rows)
        x = x_of(tokens, blocks * block)
        bias = np.arange(rows, dtype=np.float32)
        put = there(weight, place)
        got = maps.linear(place.put(x), put, place.put(bias))
        assert got.shape == (tokens, rows) and got.dtype == np.float32
        assert error(got.get(), truth(x, weight, bias)).max() < CLOSE
        assert error(maps.linear(place.put(x), put).get(), truth(x, weight)).max() < CLOSE


@pytest.mark.parametrize("type", [GGMLType.Q4_K, GGMLType.Q8_0, *PLAIN], ids=lambda t: t.name)
@pytest.mark.parametrize("mode", ["f32", "q8"])
def test_many_rows(mode: str, type: GGMLType, place: Device, error: Nmse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of three rows, and numbers that float16 could not hold."""
    weight = drawn(type, (8, 256))
    monkeypatch.setattr(products, "_TILE", 3 * 256)
    x = x_of(9, 256) * np.float32(1000)
    got = Products(mode).linear(place.put(x), there(weight, place))
    assert got.dtype == np.float32
    assert error(got.get(), linear_f32(x, weight)).max() < (CLOSE if mode == "f32" else 1e-6)


def test_several_maps_of_one_input(place: Device, error: Nmse) -> None:
    """Of types that round it in different ways, and one that no kernel knows."""
    types = (GGMLType.Q4_0, GGMLType.Q4_1, GGMLType.Q4_K, GGMLType.Q6_K, GGMLType.F16, GGMLType.TQ2_0)
    weights = [drawn(t, (4, 256), i) for i, t in enumerate(types)]
    x = x_of(2, 256)
    got = Products("q8").linears(place.put(x), [(there(w, place), None) for w in weights])
    for weight, y in zip(weights, got, strict=True):
        want = (linear_f32 if weight.type is GGMLType.TQ2_0 else linear_q8)(x, weight)
        assert error(y.get(), want).max() < CLOSE, weight.type.name


def test_an_input_at_an_odd_address(place: Device, error: Nmse) -> None:
    """A part of a row, as a split of one token's heads is."""
    weight = drawn(GGMLType.Q5_K, (3, 256))
    x = x_of(1, 300)
    for mode, truth in (("f32", linear_f32), ("q8", linear_q8)):
        got = Products(mode).linear(place.put(x)[:, 5:261], there(weight, place))
        assert error(got.get(), truth(np.ascontiguousarray(x[:, 5:261]), weight)).max() < CLOSE


@pytest.mark.parametrize("type", [GGMLType.Q6_K, GGMLType.BF16], ids=lambda t: t.name)
def test_matrices_of_a_stack(type: GGMLType, place: Device, error: Nmse) -> None:
    """Slots of two tokens with three experts each, and an expert by itself out of the same memory."""
    stack = drawn(type, (5, 6, 256))
    put = there(stack, place)
    x, ids, bias = x_of(2, 256), np.array([4, 0, 2, 2, 1, 3], np.int32), np.arange(30, dtype=np.float32).reshape(5, 6)
    maps, w = Products("q8"), packed(put)
    used = place.cupy.pool.used_bytes()
    got = maps.product(maps.input(place.put(x), type), w, place.put(bias), place.put(ids), 6, 3).get()
    for slot, e in enumerate(ids.tolist()):
        want = linear_q8(x[slot // 3 : slot // 3 + 1], stack.expert(e), bias[e])
        assert error(got[slot], want[0]) < CLOSE
    alone = maps.linear(place.put(x), put.expert(3)).get()
    assert error(alone, linear_q8(x, stack.expert(3))).max() < CLOSE
    assert place.cupy.pool.used_bytes() == used


@pytest.mark.parametrize("type", [GGMLType.Q8_0, GGMLType.BF16, GGMLType.TQ2_0], ids=lambda t: t.name)
def test_a_matrix_for_each_head(type: GGMLType, place: Device, error: Nmse) -> None:
    """Of parts of heads, as latent attention has them; as one launch, or three where there are many tokens."""
    weight = drawn(type, (3, 7, 256))
    put = there(weight, place)
    for tokens in (1, 8, 20):
        x = x_of(tokens * 3, 260).reshape(tokens, 3, 260)
        for mode, truth in (("f32", linear_f32), ("q8", linear_q8)):
            want = by_head(x[..., :256], weight, truth if type is not GGMLType.TQ2_0 else linear_f32)
            got = Products(mode).by_head(place.put(x)[..., :256], put)
            assert got.shape == want.shape == (tokens, 3, 7) and error(got.get(), want).max() < CLOSE


def test_widths_are_checked(place: Device) -> None:
    weight = replace(drawn(GGMLType.Q4_0, (4, 64)), place=place)
    with pytest.raises(ValueError, match="w: input of width 32, weight of width 64"):
        Products("q8").linear(place.put(x_of(1, 32)), weight)
    stack = replace(drawn(GGMLType.Q4_0, (2, 4, 64)), place=place)
    with pytest.raises(ValueError, match="w: input of 2 heads of width 32, weight of shape 2, 4, 64"):
        Products("q8").by_head(place.put(x_of(2, 32).reshape(1, 2, 32)), stack)


def test_weights_take_no_more_than_in_the_file(place: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ref_engine.gpu.packed._PIECE", 1000)
    for type in BLOCKS:
        weight = drawn(type, (9, 512))
        w = None
        before = place.cupy.pool.used_bytes()
        w = packed(there(weight, place))
        assert place.cupy.pool.used_bytes() - before == weight.nbytes
        np.testing.assert_array_equal(values(w, 0, 9, np.float32).get(), weight.f32())
    assert place is not HOST


@pytest.mark.parametrize("type", [GGMLType.Q4_K, GGMLType.Q5_0, *PLAIN], ids=lambda t: t.name)
def test_rows_of_a_table(type: GGMLType, place: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the host, and when a product has brought the table to the device, from there, with the same bits."""
    table = drawn(type, (11, 256))
    put, ids = there(table, place), np.array([3, 10, 0, 3])
    want = embed(ids, table)
    np.testing.assert_array_equal(embed_there(place, ids, put).get(), want)
    Products("q8").linear(place.put(x_of(1, 256)), put)
    monkeypatch.setattr("ref_engine.weights.Weight.rows", None)
    np.testing.assert_array_equal(embed_there(place, ids, put).get(), want)
    with pytest.raises(IndexError, match=r"token id outside 0\.\.10: 3\.\.11"):
        embed_there(place, np.array([3, 11]), put)


@pytest.mark.parametrize("type", [GGMLType.Q4_K, *PLAIN], ids=lambda t: t.name)
@pytest.mark.parametrize("first", ["numbers", "product"])
def test_a_weight_that_is_used_in_two_ways_is_there_once(type: GGMLType, first: str, place: Device) -> None:
    """As numbers by some layer, and by a kernel: with no budget for unpacked weights, its bytes alone stay."""
    weight = there(drawn(type, (8, 256)), place)
    x, before = place.put(x_of(1, 256)), place.cupy.pool.used_bytes()
    for way in sorted(("numbers", "product"), reverse=first == "product") * 2:
        if way == "numbers":
            weight.f32()
        else:
            Products("f32").linear(x, weight)
    assert place.cupy.pool.used_bytes() - before == weight.nbytes
