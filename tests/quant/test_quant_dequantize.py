"""Bytes to float32, bit for bit, against ggml's own conversion and the gguf package's."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from ref_engine.errors import ModelError
from ref_engine.files.types import BLOCK, GGMLType
from ref_engine.quant.blocks import IntegerBlocks
from ref_engine.quant.codebooks import codebook, even_signs, levels
from ref_engine.quant.types import BLOCK_TYPES, NUMBER_TYPES, PLAIN_TYPES, dequantize, integers

TYPES = [*PLAIN_TYPES, *BLOCK_TYPES]
# ggml itself has no to_float for Q8_1; the gguf package has no definition of these four
NOT_IN_GGML = {GGMLType.F32, GGMLType.Q8_1}
NOT_IN_GGUF = {GGMLType.Q8_1, GGMLType.Q8_K, GGMLType.Q1_0, GGMLType.Q2_0}


def same_bits(got: np.ndarray, want: np.ndarray) -> bool:
    """Equal as bits, but any NaN equals any NaN."""
    nan = np.isnan(want)
    return bool((np.isnan(got) == nan).all() and (got.view(np.uint32)[~nan] == want.view(np.uint32)[~nan]).all())


@pytest.mark.parametrize("type", [t for t in TYPES if t not in NOT_IN_GGML], ids=lambda t: t.name)
def test_against_ggml(type: GGMLType, golden: Path) -> None:
    """Random blocks, zero blocks, scales denormal, largest, infinite and NaN, and every point of a codebook."""
    data = np.load(golden / "ops" / "dequantize.npz")
    if f"{type.name}/blocks" not in data:
        data = np.load(golden / "quant" / "dequantize.npz")
    blocks, want = data[f"{type.name}/blocks"], data[f"{type.name}/values"]
    assert same_bits(dequantize(blocks, type), want)


@pytest.mark.parametrize("type", [t for t in TYPES if t not in NOT_IN_GGUF], ids=lambda t: t.name)
def test_against_the_gguf_package_on_a_million_weights(type: GGMLType) -> None:
    weights, size = BLOCK[type]
    blocks = np.random.default_rng(5).integers(0, 256, (-(-1_000_000 // weights), size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        want = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[type.name])
    assert same_bits(dequantize(blocks, type), np.ascontiguousarray(want).reshape(len(blocks), -1))


@pytest.mark.parametrize("type", list(BLOCK_TYPES), ids=lambda t: t.name)
def test_layout_has_the_size_of_the_file_format(type: GGMLType) -> None:
    assert BLOCK[type] == (BLOCK_TYPES[type].size, BLOCK_TYPES[type].layout.itemsize)


def sane_blocks(type: GGMLType, n: int, seed: int) -> np.ndarray:
    """Random bytes with float16 scales of ordinary size."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (n, BLOCK[type][1]), dtype=np.uint8)
    records = blocks.view(BLOCK_TYPES[type].layout)
    for field in {"d", "m", "dmin"} & set(records.dtype.names or ()):
        records[field] = rng.normal(0, 1e-2, records[field].shape)
    if type is GGMLType.IQ1_M:  # the top nibble of the last word is the top of the scale
        records["scales"][..., 3] = records["scales"][..., 3] & 0xFFF | 0x2000
    if type is GGMLType.MXFP4:
        records["e"] = rng.integers(110, 130, records["e"].shape)
    return blocks


@pytest.mark.parametrize("type", list(BLOCK_TYPES), ids=lambda t: t.name)
def test_the_integer_view_is_the_same_numbers(type: GGMLType) -> None:
    """d * q (+ m, - dmin * min) in float64 is the dequantised block up to float32 rounding."""
    blocks = sane_blocks(type, 300, 6)
    want = dequantize(blocks, type)
    np.testing.assert_allclose(values(integers(blocks, type)).reshape(want.shape), want, rtol=1e-5, atol=1e-5)


def values(view: IntegerBlocks) -> np.ndarray:
    x = view.d[..., None].astype(np.float64) * view.q
    if view.m is not None:
        x += view.m[..., None]
    if view.mins is not None and view.dmin is not None:
        per_group = view.dmin[..., None].astype(np.float64) * view.mins
        x -= np.repeat(per_group, x.shape[-1] // per_group.shape[-1], axis=-1)
    return x


@pytest.mark.parametrize("type", list(BLOCK_TYPES), ids=lambda t: t.name)
def test_a_dot_of_integers_is_exact(type: GGMLType) -> None:
    """Whole numbers, and however they are added up with activations of -128 .. 127, no sum leaves the whole numbers
    that the view's dtype can hold."""
    view = integers(sane_blocks(type, 300, 8), type)
    assert (view.q == np.rint(view.q)).all()
    assert view.q.shape[-1] == {"q8_0": 32, "q8_1": 32, "q8_k": 256}[BLOCK_TYPES[type].activation]
    assert 128 * np.abs(view.q).astype(np.float64).sum(-1).max() < 2.0 ** (np.finfo(view.q.dtype).nmant + 1)


def test_codebooks_are_what_the_format_lists() -> None:
    """Sizes and ends as in ggml-common.h; the walk through all points is in the golden of `test_against_ggml`."""
    sizes = {"iq1": 2048, "iq2_xxs": 256, "iq2_xs": 512, "iq2_s": 1024, "iq3_xxs": 256, "iq3_s": 512}
    for name, n in sizes.items():
        points = codebook(name)
        assert len(points) == n
        assert set(np.unique(points)) == set(levels(name))
    assert codebook("iq2_xxs")[1].tolist() == [0x2B, 8, 8, 8, 8, 8, 8, 8]
    assert codebook("iq3_s")[3].tolist() == [0x0B, 1, 1, 1]


def test_the_eighth_sign_makes_the_number_even() -> None:
    """0b1 -> 0b10000001; 0b11 stays; as in `ksigns_iq2xs`: 0, 129, 130, 3."""
    assert even_signs(np.arange(4, dtype=np.uint32)).tolist() == [0, 129, 130, 3]


def test_iq4_xs_by_hand() -> None:
    """Scale 1.0, sub-block 0 has 33 (low 1, top 2): weights 0 and 16 are table[0] = -127 and table[15] = 113."""
    block = np.zeros((1, 136), np.uint8)
    block[0, :5] = 0x00, 0x3C, 0x02, 0x00, 0x01
    block[0, 8] = 0xF0
    got = dequantize(block, GGMLType.IQ4_XS)[0]
    assert got[0] == -127 and got[16] == 113
    assert got[32] == -32 * -127


def test_tq1_0_by_hand() -> None:
    """Digits 2 1 0 0 2 are 2*81 + 1*27 + 2 = 191, stored as ceil(256 * 191 / 243) = 202: weights 0, 32, 64, 96, 128."""
    block = np.zeros((1, 54), np.uint8)
    block[0, 0], block[0, 52:] = 202, (0x00, 0x40)
    assert dequantize(block, GGMLType.TQ1_0)[0, :160:32].tolist() == [2, 0, -2, -2, 2]


def test_nvfp4_by_hand() -> None:
    """Scale byte 0x3C = 2^0 * 1.5: code 7 is 6 * 1.5; byte 0 holds weights 0 (low) and 8 (high: code 9, -0.5 * 1.5)."""
    block = np.zeros((1, 36), np.uint8)
    block[0, 0], block[0, 4] = 0x3C, 0x97
    got = dequantize(block, GGMLType.NVFP4)[0]
    assert got[0] == 9 and got[8] == -0.75 and not got[16:].any()


@pytest.mark.parametrize("type", list(NUMBER_TYPES), ids=lambda t: t.name)
def test_plain_numbers(type: GGMLType) -> None:
    numbers = np.array([[0, 1, -7, 100]]).astype(NUMBER_TYPES[type])
    got = dequantize(numbers.view(np.uint8), type)
    assert got.dtype == np.float32 and got.tolist() == [[0, 1, -7, 100]]


def test_every_type_of_the_format_has_a_meaning() -> None:
    assert set(TYPES) | set(NUMBER_TYPES) == set(GGMLType)


def test_q4_0_by_hand() -> None:
    """Scale 2.0 (0x4000), byte 0 = 0x9F: weight 0 is (15 - 8) * 2, weight 16 is (9 - 8) * 2; the rest -16."""
    block = np.zeros((1, 18), np.uint8)
    block[0, :3] = 0x00, 0x40, 0x9F
    want = np.full(32, -16, np.float32)
    want[0], want[16] = 14, 2
    assert (dequantize(block, GGMLType.Q4_0)[0] == want).all()


def test_numbers_have_no_blocks() -> None:
    with pytest.raises(ModelError, match="I32"):
        integers(np.zeros((1, 4), np.uint8), GGMLType.I32)
