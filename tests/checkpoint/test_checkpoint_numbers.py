"""8-bit floats and bfloat16 against values by hand, from the papers that define them."""

from __future__ import annotations

import numpy as np
import pytest

from ref_engine.checkpoint.numbers import decode, e4m3_to_f32


@pytest.mark.parametrize(
    ("bits", "value"),
    [
        (0x00, 0.0),
        (0x01, 2.0**-9),
        (0x07, 7 * 2.0**-9),
        (0x08, 2.0**-6),
        (0x38, 1.0),
        (0x3C, 1.5),
        (0x7E, 448.0),
        (0xC0, -2.0),
    ],
)
def test_e4m3(bits: int, value: float) -> None:
    assert e4m3_to_f32(np.array([bits], np.uint8))[0] == value


def test_e4m3_has_two_nans_and_no_infinity() -> None:
    values = e4m3_to_f32(np.arange(256, dtype=np.uint8))
    assert list(np.flatnonzero(np.isnan(values))) == [0x7F, 0xFF]
    assert not np.isinf(values).any()


def test_other_types() -> None:
    def one(raw: bytes, dtype: str) -> float:
        return float(decode(np.frombuffer(raw, np.uint8), dtype)[0])

    assert one(b"\x80\x3f", "BF16") == 1.0
    assert one(b"\x3c", "F8_E5M2") == 1.0
    assert one(b"\x7f", "F8_E8M0") == 1.0
    assert one(b"\x80", "F8_E8M0") == 2.0
    assert one((-3).to_bytes(8, "little", signed=True), "I64") == -3.0
    assert decode(np.array([1, 2], np.uint8), "U8").dtype == np.uint8
    assert decode(np.zeros(4, np.uint8), "F16").dtype == np.float16
