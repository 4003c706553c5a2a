"""Bytes to float32, bit for bit, against ggml's own conversion and the gguf package's."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from ref_engine.errors import ModelError
from ref_engine.files.types import BLOCK, GGMLType
from ref_engine.quant.types import BLOCK_TYPES, PLAIN_TYPES, dequantize, integers

TYPES = [*PLAIN_TYPES, *BLOCK_TYPES]


def same_bits(got: np.ndarray, want: np.ndarray) -> bool:
    """Equal as bits, but any NaN equals any NaN."""
    nan = np.isnan(want)
    return bool((np.isnan(got) == nan).all() and (got.view(np.uint32)[~nan] == want.view(np.uint32)[~nan]).all())


@pytest.mark.parametrize("type", [t for t in TYPES if t is not GGMLType.F32], ids=lambda t: t.name)
def test_against_ggml(type: GGMLType, golden: Path) -> None:
    """Random blocks, zero blocks, and scales denormal, largest, infinite and NaN."""
    data = np.load(golden / "ops" / "dequantize.npz")
    blocks, want = data[f"{type.name}/blocks"], data[f"{type.name}/values"]
    assert same_bits(dequantize(blocks, type), want)


@pytest.mark.parametrize("type", TYPES, ids=lambda t: t.name)
def test_against_the_gguf_package_on_a_million_weights(type: GGMLType) -> None:
    weights, size = BLOCK[type]
    blocks = np.random.default_rng(5).integers(0, 256, (-(-1_000_000 // weights), size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        want = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[type.name])
    assert same_bits(dequantize(blocks, type), np.ascontiguousarray(want).reshape(len(blocks), -1))


@pytest.mark.parametrize("type", list(BLOCK_TYPES), ids=lambda t: t.name)
def test_layout_has_the_size_of_the_file_format(type: GGMLType) -> None:
    assert BLOCK[type] == (BLOCK_TYPES[type].size, BLOCK_TYPES[type].layout.itemsize)


@pytest.mark.parametrize("type", list(BLOCK_TYPES), ids=lambda t: t.name)
def test_the_integer_view_is_the_same_numbers(type: GGMLType) -> None:
    """d * q (+ m, - dmin * min) in float64 is the dequantised block up to float32 rounding."""
    weights, size = BLOCK[type]
    rng = np.random.default_rng(6)
    blocks = rng.integers(0, 256, (300, size), dtype=np.uint8)
    records = blocks.view(BLOCK_TYPES[type].layout)
    for field in ("d", "m", "dmin"):
        if field in (records.dtype.names or ()):
            records[field] = rng.normal(0, 1e-2, records[field].shape).astype(np.float16)
    view = integers(blocks, type)
    values = view.d[..., None].astype(np.float64) * view.q
    if view.m is not None:
        values += view.m[..., None]
    if view.mins is not None and view.dmin is not None:
        per_group = view.dmin[..., None].astype(np.float64) * view.mins
        values -= np.repeat(per_group, weights // per_group.shape[-1], axis=-1)
    want = dequantize(blocks, type)
    np.testing.assert_allclose(values.reshape(want.shape), want, rtol=1e-5, atol=1e-5)


def test_q4_0_by_hand() -> None:
    """Scale 2.0 (0x4000), byte 0 = 0x9F: weight 0 is (15 - 8) * 2, weight 16 is (9 - 8) * 2; the rest -16."""
    block = np.zeros((1, 18), np.uint8)
    block[0, :3] = 0x00, 0x40, 0x9F
    want = np.full(32, -16, np.float32)
    want[0], want[16] = 14, 2
    assert (dequantize(block, GGMLType.Q4_0)[0] == want).all()


def test_a_type_without_definition_is_named() -> None:
    with pytest.raises(ModelError, match="IQ1_S"):
        dequantize(np.zeros((1, BLOCK[GGMLType.IQ1_S][1]), np.uint8), GGMLType.IQ1_S)
