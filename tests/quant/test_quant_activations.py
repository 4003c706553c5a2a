"""Activations rounded to 8 bits: ggml's bytes, and what ggml leaves undefined."""

from pathlib import Path

import numpy as np
import pytest

from ref_engine.quant.activations import q8_0, q8_1, q8_k
from ref_engine.quant.plain import f32_to_bf16, f32_to_f16

ROUNDINGS = {"q8_0": q8_0, "q8_1": q8_1, "q8_K": q8_k}


@pytest.mark.parametrize("name", ROUNDINGS)
def test_bytes_are_ggmls(name: str, golden: Path) -> None:
    data = np.load(golden / "ops" / "activations.npz")
    got = np.frombuffer(ROUNDINGS[name](data["x"]).tobytes(), np.uint8).reshape(data[name].shape)
    for row, label in enumerate(data["names"]):
        if label not in ("denormal", "smallest") or name == "q8_K":
            assert (got[row] == data[name][row]).all(), label


@pytest.mark.parametrize("name", ["q8_0", "q8_1"])
def test_where_127_over_the_largest_overflows(name: str, golden: Path) -> None:
    """Blocks below 4e-37: the scale is zero in both. ggml converts infinities to integers there and gets -128; we
    have zeros, and the product is zero either way."""
    data = np.load(golden / "ops" / "activations.npz")
    row = list(data["names"]).index("denormal")
    got = ROUNDINGS[name](data["x"][row : row + 1])
    assert not got.d.any() and not got.q.any()
    header = got.d.dtype.itemsize // 2 * (1 if name == "q8_0" else 2)
    theirs = data[name][row].reshape(16, -1)
    assert not theirs[:, :header].any() and (theirs[:, header:].view(np.int8) == -128).all()


def test_half_precision_bytes_are_ggmls(golden: Path) -> None:
    data = np.load(golden / "ops" / "activations.npz")
    assert (f32_to_f16(data["x"]).view(np.uint8) == data["f16"]).all()
    assert (f32_to_bf16(data["x"]).view(np.uint8) == data["bf16"]).all()


def test_by_hand() -> None:
    """Largest 127: scale 1, integers are the values, ties to even. q8_k makes the largest -127 with scale -1."""
    x = np.zeros((1, 256), np.float32)
    x[0, :5] = 127, -3, 0.5, 1.5, 2.5
    assert q8_0(x).q[0, 0, :5].tolist() == [127, -3, 0, 2, 2]
    assert q8_0(x).d[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    s = q8_1(x).s
    assert s is not None and s[0].tolist() == [128, 0, 0, 0, 0, 0, 0, 0]
    k = q8_k(x)
    assert k.d[0, 0] == -1 and k.q[0, 0, :5].tolist() == [-127, 3, 0, -2, -2]
    assert k.sums is not None and k.sums[0, 0].tolist() == [-128] + [0] * 15


@pytest.mark.parametrize("name", ROUNDINGS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_spoils_its_block_only(name: str, bad: float) -> None:
    x = np.ones((1, 512), np.float32)
    x[0, 3] = bad
    got = ROUNDINGS[name](x)
    assert np.isnan(got.d[0, 0]) and (got.q[0, 0] == 0).all()
    assert (np.abs(got.q[0, -1]) == 127).all() and np.isfinite(got.d[0, -1])
