"""float32 to blocks: ggml's bytes, for rows that reach every branch and for a real model's tensors."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ref_engine.errors import GGUFError, ModelError
from ref_engine.files.gguf import open_gguf
from ref_engine.files.types import GGMLType
from ref_engine.quant.quantize import NEEDS_IMPORTANCE, QUANTISERS, quantize
from ref_engine.quant.types import dequantize

TYPES = list(QUANTISERS)


@pytest.mark.parametrize("case", ["plain", "weighted"])
@pytest.mark.parametrize("type", TYPES, ids=lambda t: t.name)
def test_bytes_are_ggmls(type: GGMLType, case: str, golden: Path) -> None:
    data = np.load(golden / "quant" / "quantize.npz")
    if case == "plain" and type in NEEDS_IMPORTANCE:
        with pytest.raises(ModelError, match="needs an importance matrix"):
            quantize(data["x"], type)
        return
    want = data[f"{type.name}/{case}"]
    got = quantize(data["x"][: len(want)], type, data["importance"] if case == "weighted" else None)
    assert got.shape == want.shape and got.dtype == np.uint8
    differ = [str(name) for name, a, b in zip(data["names"], got, want, strict=False) if (a != b).any()]
    assert differ == []


@pytest.mark.parametrize("type", TYPES, ids=lambda t: t.name)
def test_tensors_of_a_real_model(type: GGMLType, smollm2: Path, golden: Path) -> None:
    hashes = json.loads((golden / "quant" / "smollm2.json").read_text())
    with open_gguf(smollm2) as file:
        for name, wanted in hashes.items():
            if type.name not in wanted:
                continue
            info = file.tensors[name]
            packed = file.data(name).reshape(info.shape[0], -1)[:64]
            got = quantize(dequantize(packed, info.type), type)
            assert hashlib.sha256(got.tobytes()).hexdigest() == wanted[type.name], name


def test_half_precision_types_round_to_nearest_even() -> None:
    """2049 lies between the float16 2048 and 2050; 1 + 2^-8 between the bfloat16 1 and 1 + 2^-7."""
    rows = np.array([[2049, 2051, 1 + 2**-8, 1 + 3 * 2**-8]], np.float32)
    assert quantize(rows, GGMLType.F16).view(np.float16).tolist()[0][:2] == [2048, 2052]
    assert dequantize(quantize(rows, GGMLType.BF16), GGMLType.BF16).tolist()[0][2:] == [1, 1 + 2**-6]
    assert quantize(rows, GGMLType.F32).tobytes() == rows.tobytes()


def test_leading_axes_and_chunks_leave_no_trace() -> None:
    rows = np.random.default_rng(2).standard_normal((3, 700, 256)).astype(np.float32)
    whole = quantize(rows, GGMLType.Q4_K)
    assert whole.shape == (3, 700, 144)
    assert (whole[1, 650] == quantize(rows[1, 650], GGMLType.Q4_K)).all()


def test_q8_0_by_hand() -> None:
    """Largest 127: scale 1; halves go away from zero."""
    row = np.zeros((1, 32), np.float32)
    row[0, :5] = 127, -3, 0.5, 1.5, -2.5
    got = quantize(row, GGMLType.Q8_0)[0]
    assert got[:2].view(np.float16)[0] == 1
    assert got[2:7].view(np.int8).tolist() == [127, -3, 1, 2, -3]


@pytest.mark.parametrize("type", [GGMLType.Q8_1, GGMLType.Q8_K, GGMLType.I32, GGMLType.F64], ids=lambda t: t.name)
def test_no_quantiser(type: GGMLType) -> None:
    with pytest.raises(ModelError, match=type.name):
        quantize(np.zeros((1, 256), np.float32), type)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_named(bad: float) -> None:
    rows = np.zeros((5, 256), np.float32)
    rows[3, 77] = bad
    with pytest.raises(ModelError, match=r"row 3, column 77"):
        quantize(rows, GGMLType.Q4_K)


def test_rows_that_are_not_whole_blocks() -> None:
    with pytest.raises(GGUFError, match="200"):
        quantize(np.zeros((2, 200), np.float32), GGMLType.Q6_K)


def test_importances_are_checked() -> None:
    rows = np.ones((1, 256), np.float32)
    with pytest.raises(ValueError, match="256"):
        quantize(rows, GGMLType.Q4_K, np.ones(128, np.float32))
    with pytest.raises(ModelError, match="importance"):
        quantize(rows, GGMLType.Q4_K, np.full(256, -1, np.float32))


@pytest.mark.parametrize("name", ["IQ2_S", "IQ3_XXS", "IQ3_S"])
def test_errors_too_large_to_compare_are_refused(name: str) -> None:
    """ggml aborts the process here."""
    rows = np.random.default_rng(3).standard_normal((1, 256)).astype(np.float32) * np.float32(1e30)
    with pytest.raises(ModelError, match="too large"):
        quantize(rows, GGMLType[name])
