"""8-bit checkpoints against arithmetic by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ref_engine.checkpoint import Config, Tensor, given
from ref_engine.checkpoint.dequantize import dequantized
from ref_engine.errors import ConvertError

FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 3]}}


def tensor(name: str, values: Any) -> Tensor:
    return given(name, np.array(values, np.float32))


def test_a_factor_for_each_block() -> None:
    weight = np.arange(15, dtype=np.float32).reshape(3, 5)  # blocks of 2 x 3, cut off at both edges
    scale = np.array([[1, 10], [100, 1000]], np.float32)
    made = dequantized(
        Config(FP8),
        {
            "a.weight": tensor("a.weight", weight),
            "a.weight_scale_inv": tensor("a.weight_scale_inv", scale),
            "a.activation_scale": tensor("s", 1.0),
            "norm.weight": tensor("norm.weight", [1.0]),
        },
    )
    want = weight * [[1, 1, 1, 10, 10], [1, 1, 1, 10, 10], [100, 100, 100, 1000, 1000]]
    assert list(made) == ["a.weight", "norm.weight"]
    np.testing.assert_array_equal(made["a.weight"].whole(), want.astype(np.float32))


def test_a_factor_for_each_row() -> None:
    weights = {"num_bits": 8, "type": "float", "strategy": "channel"}
    config = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"g": {"weights": weights}},
    }
    made = dequantized(
        Config({"quantization_config": config}),
        {"a.weight": tensor("a.weight", [[1, 2], [3, 4]]), "a.weight_scale": tensor("a.weight_scale", [[2], [10]])},
    )
    np.testing.assert_array_equal(made["a.weight"].whole(), [[2, 4], [30, 40]])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a.weight_scale_inv": [[1.0]]}, "a.weight_scale_inv scales a tensor that is missing"),
        ({"a.weight": [[1.0] * 5] * 3, "a.weight_scale_inv": [[1.0]]}, r"is \[1, 1\]; \[3, 5\] needs \[2, 2\]"),
    ],
)
def test_scales_that_do_not_fit(tensors: dict[str, Any], message: str) -> None:
    with pytest.raises(ConvertError, match=message):
        dequantized(Config(FP8), {name: tensor(name, values) for name, values in tensors.items()})


def test_other_methods_are_named() -> None:
    with pytest.raises(ConvertError, match="quantised by 'gptq'"):
        dequantized(Config({"quantization_config": {"quant_method": "gptq"}}), {})
    assert dequantized(Config({}), {}) == {}
