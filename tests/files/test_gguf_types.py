"""The type tables against the gguf package's, which takes them from ggml."""

import gguf
import pytest

from ref_engine.errors import GGUFError
from ref_engine.files.types import BLOCK, REMOVED, GGMLType, GGUFValueType, row_bytes


def test_tensor_types_have_the_numbers_of_the_gguf_package() -> None:
    ours = {type.name: type.value for type in GGMLType}
    theirs = {type.name: type.value for type in gguf.GGMLQuantizationType}
    assert theirs.items() <= ours.items()
    # The package lags behind ggml.h; 42 is the last number before GGML_TYPE_COUNT.
    assert ours.items() - theirs.items() <= {("Q1_0", 41), ("Q2_0", 42)}


def test_every_number_up_to_the_count_is_a_type_or_removed() -> None:
    assert sorted([*GGMLType, *REMOVED]) == list(range(43))


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    sizes = {GGMLType(type.value): size for type, size in gguf.GGML_QUANT_SIZES.items()}
    # The package still has the float scales of an old Q8_1; block_q8_1 in ggml-common.h has two halves.
    assert sizes.pop(GGMLType.Q8_1) == (32, 4 + 4 + 32)
    assert BLOCK[GGMLType.Q8_1] == (32, 2 + 2 + 32)
    assert {type: BLOCK[type] for type in sizes} == sizes
    assert set(BLOCK) == set(GGMLType)
    assert BLOCK[GGMLType.Q2_0] == (64, 2 + 64 // 4)  # a half and two bits each: block_q2_0 in ggml-common.h


def test_value_types_are_those_of_the_gguf_package() -> None:
    assert {t.name: t.value for t in GGUFValueType} == {t.name: t.value for t in gguf.GGUFValueType}


def test_row_bytes() -> None:
    assert row_bytes(GGMLType.Q4_K, 512) == 288
    assert row_bytes(GGMLType.F32, 3) == 12
    assert row_bytes(GGMLType.MXFP4, 0) == 0
    with pytest.raises(GGUFError, match="33 weights is not a whole number of Q4_0 blocks of 32"):
        row_bytes(GGMLType.Q4_0, 33)
    with pytest.raises(GGUFError, match="-1 weights"):
        row_bytes(GGMLType.F32, -1)
