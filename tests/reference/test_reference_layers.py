"""Norm, rotation, softmax and products against ggml's own operations on the same inputs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ref_engine.files.types import GGMLType
from ref_engine.reference.attention import soft_max
from ref_engine.reference.linear import linear_f32, linear_q8
from ref_engine.reference.norm import rms_norm
from ref_engine.weights import Weight

# those of golden/ops; tests/quant/test_quant_products.py has the others
NAMES = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4"
TYPES = [GGMLType[name] for name in NAMES.split()]
Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.mark.parametrize("case", ["rows_1e-05", "rows_1e-06", "odd_1e-05", "odd_1e-06"])
def test_rms_norm(case: str, golden: Path, error: Nmse) -> None:
    data = np.load(golden / "ops" / "graph.npz")
    got = rms_norm(data[f"rms_norm_{case}/a"], None, float(case.split("_")[1]))
    assert error(got, data[f"rms_norm_{case}/out"]).max() < 1e-12


def test_rms_norm_by_hand() -> None:
    """mean(9, 16, 0, 0) = 6.25, and 1 / sqrt(6.25 + 2.75) = 1/3; the weight multiplies last."""
    x = np.array([[3, -4, 0, 0]], np.float32)
    got = rms_norm(x, np.array([1, 2, 3, 4], np.float32), 2.75)
    np.testing.assert_allclose(got, [[1, -8 / 3, 0, 0]], rtol=1e-7)


def test_soft_max(golden: Path, error: Nmse) -> None:
    data = np.load(golden / "ops" / "graph.npz")
    all_seen = np.ones((7, 40), bool)
    assert error(soft_max(data["soft_max_plain/a"], all_seen, 1.0), data["soft_max_plain/out"]).max() < 1e-12


def test_soft_max_by_hand() -> None:
    """exp(2 ln 1), exp(2 ln 3) of the two seen entries: 1/10 and 9/10; the third is not seen."""
    x = np.log(np.array([[1, 3, 1000]], np.float32))
    np.testing.assert_allclose(soft_max(x, np.array([[True, True, False]]), 2.0), [[0.1, 0.9, 0]], rtol=1e-6)


@pytest.mark.parametrize("k", [256, 512, 2048])
@pytest.mark.parametrize("type", TYPES, ids=lambda t: t.name)
def test_q8_products_are_ggmls(type: GGMLType, k: int, golden: Path) -> None:
    data = np.load(golden / "ops" / "vec_dot.npz")
    if f"x_{k}" not in data:
        pytest.fail(f"the golden has no rows of {k}")
    w, want = data[f"{type.name}/w_{k}"], data[f"{type.name}/y_{k}"].astype(np.float64)
    weight = Weight("w", type, (len(w), k), np.ascontiguousarray(w).reshape(-1))
    got = linear_q8(data[f"x_{k}"], weight).astype(np.float64)
    assert ((got - want) ** 2).sum() / (want**2).sum() < 1e-12


@pytest.mark.parametrize("type", TYPES, ids=lambda t: t.name)
def test_one_row_or_many_give_the_same_bits(type: GGMLType, golden: Path) -> None:
    data = np.load(golden / "ops" / "vec_dot.npz")
    w, x = data[f"{type.name}/w_512"], data["x_512"]
    weight = Weight("w", type, (len(w), 512), np.ascontiguousarray(w).reshape(-1))
    whole = linear_q8(x, weight)
    assert (np.concatenate([linear_q8(row[None], weight) for row in x]) == whole).all()


@pytest.mark.parametrize("name", ["Q4_1", "Q6_K", "Q4_K"])
def test_the_order_of_a_block_product_spelled_out(name: str, golden: Path) -> None:
    """acc + (dw * dx) * isum, then + m * s or - (dmin * dx) * imin, block after block, each step rounded to float32."""
    from ref_engine.quant.activations import ROUNDINGS

    data = np.load(golden / "ops" / "vec_dot.npz")
    type = GGMLType[name]
    w, x = data[f"{name}/w_2048"], data["x_2048"]
    weight = Weight("w", type, (len(w), 2048), np.ascontiguousarray(w).reshape(-1))
    a, v, f = ROUNDINGS[weight.activation](x), weight.integers(), np.float32
    got = linear_q8(x, weight)
    for t in range(2):
        for row in range(3):
            acc = f(0)
            for b in range(a.q.shape[1]):
                isum = sum(int(p) * int(q) for p, q in zip(a.q[t, b], v.q[b, row], strict=True))
                acc = f(acc + f(f(v.d[b, row] * a.d[t, b]) * f(isum)))
                if v.m is not None and a.s is not None:
                    acc = f(acc + f(v.m[b, row] * a.s[t, b]))
                if v.mins is not None and v.dmin is not None and a.sums is not None:
                    pairs = [int(a.sums[t, b, 2 * j]) + int(a.sums[t, b, 2 * j + 1]) for j in range(8)]
                    imin = sum(p * int(m) for p, m in zip(pairs, v.mins[b, row], strict=True))
                    acc = f(acc - f(f(v.dmin[b, row] * a.d[t, b]) * f(imin)))
            assert got[t, row] == acc


def test_f32_product_is_the_matrix_product(error: Nmse) -> None:
    rng = np.random.default_rng(3)
    w, x = rng.standard_normal((7, 96)).astype(np.float32), rng.standard_normal((5, 96)).astype(np.float32)
    bias = rng.standard_normal(7).astype(np.float32)
    weight = Weight("w", GGMLType.F32, (7, 96), w.reshape(-1).view(np.uint8))
    assert error(linear_f32(x, weight, bias), x.astype(np.float64) @ w.T.astype(np.float64) + bias).max() < 1e-12
    with pytest.raises(ValueError, match="w: input of width 95"):
        linear_f32(x[:, :95], weight)
