"""Matrix products: the bits of the NumPy definition, for every weight type, instruction set and number of threads."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from ref_engine.compat import has_kernels, native
from ref_engine.files.types import GGMLType
from ref_engine.kernels import dispatch
from ref_engine.kernels.ops import Kernels, has_kernel
from ref_engine.quant.types import BLOCK_TYPES, PLAIN_TYPES
from ref_engine.reference.linear import linear_q8, linears_q8
from ref_engine.weights import Weight

F32 = NDArray[np.float32]
Same = Callable[[F32, F32], None]
Make = Callable[..., Weight]
BLOCKS = [t for t in BLOCK_TYPES if has_kernel(t)]
TYPES = [*BLOCKS, *(t for t in PLAIN_TYPES if has_kernel(t))]
# tokens, rows, blocks: one of each, whole and broken tiles of tokens (from 24 on unpacked once for all of them), whole
# and broken groups of 16 rows
SHAPES = [(1, 1, 1), (2, 16, 2), (3, 33, 3), (17, 47, 2), (27, 5, 2), (64, 33, 1)]


def test_all_types_but_one_are_compiled() -> None:
    """Q8_K is how activations are rounded; no converter writes weights of it."""
    if not has_kernels:
        pytest.skip("the kernels were not compiled")
    assert {t for t in BLOCK_TYPES if not has_kernel(t)} == {GGMLType.Q8_K}


def columns(type: GGMLType, blocks: int) -> int:
    return blocks * BLOCK_TYPES[type].size if type in BLOCK_TYPES else 20 * blocks  # 20: no multiple of the lanes


@pytest.mark.parametrize("type", TYPES, ids=lambda t: t.name)
def test_drawn_shapes(type: GGMLType, kernels: Kernels, make_weight: Make, same_bits: Same) -> None:
    for seed, (tokens, rows, blocks) in enumerate(SHAPES):
        weight = make_weight(type, rows, columns(type, blocks), seed)
        x = np.random.default_rng(seed).standard_normal((tokens, weight.shape[1])).astype(np.float32)
        same_bits(kernels.linear(x, weight), linear_q8(x, weight))


@pytest.mark.parametrize("type", TYPES, ids=lambda t: t.name)
def test_extreme_values(type: GGMLType, kernels: Kernels, make_weight: Make, same_bits: Same) -> None:
    """Scales zero, denormal, largest, infinite or NaN; inputs likewise, all equal, and halfway between integers."""
    scales = (0.0, -0.0, 6e-8, -3e-6, 65504.0, -1.5, float("inf"), float("nan"))
    weight = make_weight(type, 37, columns(type, 16), 5, scales)
    n = weight.shape[1]
    rng = np.random.default_rng(6)
    x = np.stack(
        [
            np.zeros(n),
            -np.zeros(n),
            np.full(n, 3.0),
            rng.choice([-1.0, 1.0], n),
            rng.integers(-254, 255, n) / 2,
            rng.standard_normal(n) * 1e-37,
            rng.standard_normal(n) * 1e-41,
            rng.uniform(-3e38, 3e38, n),
            rng.standard_normal(n) * 70000,
            np.where(rng.random(n) < 0.02, np.inf, 1.0),
            np.where(rng.random(n) < 0.02, np.nan, 1.0),
        ]
    ).astype(np.float32)
    with np.errstate(all="ignore"):
        want = linear_q8(x, weight)
    same_bits(kernels.linear(x, weight), want)


@pytest.mark.parametrize("type", BLOCKS, ids=lambda t: t.name)
def test_largest_integers(type: GGMLType, kernels: Kernels, same_bits: Same) -> None:
    """All bits of the weights set, or none, against activations of -127 and 127: no sum may saturate or wrap."""
    block = BLOCK_TYPES[type]
    for byte in (0x00, 0x80, 0x7F, 0xFF):
        blocks = np.full((16, 2, block.layout.itemsize), byte, np.uint8).view(block.layout)[..., 0]
        for name, one in {"d": 1, "m": 1, "dmin": 1, "e": 128}.items():
            if name in (block.layout.names or ()):
                blocks[name] = one
        weight = Weight("w", type, (16, 2 * block.size), blocks.reshape(-1).view(np.uint8))
        x = np.ones((3, weight.shape[1]), np.float32)
        x[1], x[2, ::2] = -1, -1
        same_bits(kernels.linear(x, weight), linear_q8(x, weight))


def test_all_powers_of_two(kernels: Kernels, same_bits: Same) -> None:
    """MXFP4 scales from 2^-128, which is denormal, to 2^127, one in each row."""
    block = BLOCK_TYPES[GGMLType.MXFP4]
    blocks = (
        np.random.default_rng(3).integers(0, 256, (256, block.layout.itemsize), np.uint8).view(block.layout)[..., 0]
    )
    blocks["e"] = np.arange(256)
    weight = Weight("w", GGMLType.MXFP4, (256, 32), blocks.view(np.uint8))
    x = np.random.default_rng(4).standard_normal((3, 32)).astype(np.float32)
    with np.errstate(over="ignore"):
        same_bits(kernels.linear(x, weight), linear_q8(x, weight))


def test_all_unsigned_floats(kernels: Kernels, same_bits: Same) -> None:
    """NVFP4 scales: each of the 256 bytes in each of the four places, with the largest sums of products."""
    block = BLOCK_TYPES[GGMLType.NVFP4]
    blocks = (
        np.random.default_rng(5).integers(0, 256, (256, block.layout.itemsize), np.uint8).view(block.layout)[..., 0]
    )
    blocks["scales"] = np.arange(256)[:, None] + np.array([0, 64, 128, 192])
    blocks["qs"][::2] = 0x77
    weight = Weight("w", GGMLType.NVFP4, (256, 64), blocks.view(np.uint8))
    x = np.stack([np.ones(64), np.random.default_rng(6).standard_normal(64)]).astype(np.float32)
    same_bits(kernels.linear(x, weight), linear_q8(x, weight))


def test_codebooks_are_checked() -> None:
    if not has_kernels:
        pytest.skip("the kernels were not compiled")
    data = np.zeros(16 * BLOCK_TYPES[GGMLType.IQ2_XS].layout.itemsize, np.uint8)
    for points in (None, np.zeros((511, 8), np.int8), np.zeros((512, 4), np.int8)):
        with pytest.raises(ValueError, match="IQ2_XS: the codebook has 4096 numbers"):
            native.Packed("IQ2_XS", data, 16, 256, 1, points)
    with pytest.raises(ValueError, match="Q4_0: the codebook has 0 numbers"):
        native.Packed("Q4_0", np.zeros(18, np.uint8), 1, 32, 1, np.zeros((512, 8), np.int8))
    with pytest.raises(ValueError, match="96 columns are not whole blocks of 64"):
        native.Packed("NVFP4", np.zeros(54, np.uint8), 1, 96, 1)


def test_several_weights_of_one_input(kernels: Kernels, make_weight: Make, same_bits: Same) -> None:
    """Rounded once for all, also when both kinds of rounding and plain weights take turns; biases are added."""
    types = ("Q5_0", "Q4_K", "Q8_0", "F16", "Q6_K", "Q4_1", "Q2_K", "MXFP4", "IQ3_S", "IQ4_XS", "NVFP4")
    weights = [make_weight(GGMLType[name], 20 + i, 512, i) for i, name in enumerate(types)]
    x = np.random.default_rng(1).standard_normal((5, 512)).astype(np.float32)
    bias = x[0, :20].copy()
    maps = [(w, bias if i == 0 else None) for i, w in enumerate(weights)]
    for got, want in zip(kernels.linears(x, maps), linears_q8(x, maps), strict=True):
        same_bits(got, want)


def test_shapes_that_do_not_fit_are_refused(kernels: Kernels, make_weight: Make) -> None:
    weight = make_weight(GGMLType.Q4_1, 16, 64, 0)
    with pytest.raises(ValueError, match="width 32"):
        kernels.linear(np.zeros((1, 32), np.float32), weight)
    short = Weight("w", GGMLType.Q4_1, (17, 64), weight.data)
    with pytest.raises(ValueError, match="expected 680"):
        kernels.linear(np.zeros((1, 64), np.float32), short)
    odd = Weight("w", GGMLType.Q4_1, (16, 40), weight.data)
    with pytest.raises(ValueError, match="whole blocks"):
        kernels.linear(np.zeros((1, 40), np.float32), odd)
    table, packed, x = kernels.table, kernels.packed(weight), np.zeros((2, 64), np.float32)
    for y in (np.zeros((2, 15), np.float32), np.zeros((1, 16), np.float32)):
        with pytest.raises(ValueError, match="do not fit"):
            table.linears(x, [(packed, y)], 1)
    with pytest.raises(ValueError, match="dtype"):
        table.linears(x.astype(np.float64), [(packed, np.zeros((2, 16), np.float32))], 1)
    with pytest.raises(ValueError, match="contiguous"):
        table.linears(np.zeros((2, 128), np.float32)[:, ::2], [(packed, np.zeros((2, 16), np.float32))], 1)
    with pytest.raises(ValueError, match="n_threads is 0"):
        table.linears(x, [(packed, np.zeros((2, 16), np.float32))], 0)


def test_a_type_without_a_kernel_takes_the_definition(kernels: Kernels, make_weight: Make, same_bits: Same) -> None:
    assert not has_kernel(GGMLType.Q8_K)
    weights = [make_weight(type, 5, 512, 1) for type in (GGMLType.Q8_K, GGMLType.Q4_K)]
    x = np.random.default_rng(2).standard_normal((3, 512)).astype(np.float32)
    for got, weight in zip(kernels.linears(x, [(w, None) for w in weights]), weights, strict=True):
        same_bits(got, linear_q8(x, weight))


def test_repacked_in_parts(isa: str, make_weight: Make) -> None:
    """A weight of more than one part: what was read is told in order, a row has the product it has alone."""
    weight = make_weight(GGMLType.Q8_0, 100_019, 96, 3)
    told: list[tuple[int, int]] = []
    whole = native.Packed("Q8_0", weight.data, *weight.shape, 1, read=lambda first, end: told.append((first, end)))
    assert len(told) > 1 and told[0][0] == 0 and told[-1][1] == weight.nbytes
    assert all(end == first for (_, end), (first, _) in pairwise(told))
    first = 99_991  # in another place of its group than in the part that begins with it
    some = native.Packed("Q8_0", weight.data[first * 102 :], weight.shape[0] - first, 96, 1)
    x = np.random.default_rng(4).standard_normal((2, 96)).astype(np.float32)
    y, want = np.empty((2, weight.shape[0]), np.float32), np.empty((2, weight.shape[0] - first), np.float32)
    dispatch.table(isa).linears(x, [(whole, y)], 1)
    dispatch.table(isa).linears(x, [(some, want)], 1)
    assert y[:, first:].tobytes() == want.tobytes()
