"""Everything of a layer but its matrix products: the bits of the functions in reference/."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ref_engine.kernels.ops import Kernels
from ref_engine.quant.activations import Q8_0_LAYOUT
from ref_engine.quant.rows import as_rows, first_numbers
from ref_engine.reference.attention import attend_ordered, soft_cap
from ref_engine.reference.ffn import glu
from ref_engine.reference.norm import rms_norm
from ref_engine.reference.rope import rope

F32 = NDArray[np.float32]
Same = Callable[[F32, F32], None]


def numbers(*shape: int, seed: int = 0, size: float = 1) -> F32:
    return (np.random.default_rng(seed).standard_normal(shape) * size).astype(np.float32)


def every_kind() -> F32:
    """Random bits, both zeros, both infinities, NaN, the ends of exp, and a fine grid between them: (1, n)."""
    bits = np.random.default_rng(3).integers(0, 1 << 32, 50000, np.uint32).view(np.float32)
    ends = [0.0, -0.0, np.inf, -np.inf, np.nan, 88.72284, 88.72283, -103.97208, -103.97209, 0.625, -0.625]
    return np.concatenate([bits, np.array(ends, np.float32), np.linspace(-110, 110, 20001, dtype=np.float32)])[None]


UNITS = {
    "silu": (), "gelu": (), "relu": (), "relu_sqr": (), "swiglu_oai": (1.702, 7.0), "swiglu_clamp": (0.7,),
    "swiglu_limit": (0.3,), "situ": (4.0, 25.0),
}  # fmt: skip


@pytest.mark.parametrize("activation", UNITS)
def test_glu(activation: str, kernels: Kernels, same_bits: Same) -> None:
    x, constants = every_kind(), UNITS[activation]
    for gate, up in ((x, np.ones_like(x)), (np.ones_like(x), x), (x, x)):
        with np.errstate(all="ignore"):
            same_bits(kernels.glu(gate, up, activation, constants), glu(gate, up, activation, constants))
    for shape in ((1, 1), (3, 17), (2, 40000)):
        gate, up = numbers(*shape, size=5), numbers(*shape, seed=1)
        same_bits(kernels.glu(gate, up, activation, constants), glu(gate, up, activation, constants))


def test_situ_without_its_second_bound(kernels: Kernels, same_bits: Same) -> None:
    gate, up = numbers(3, 17, size=5), numbers(3, 17, seed=1, size=9)
    same_bits(kernels.glu(gate, up, "situ", (4.0, 0.0)), glu(gate, up, "situ", (4.0, 0.0)))


def test_soft_cap(kernels: Kernels, same_bits: Same) -> None:
    with np.errstate(all="ignore"):
        same_bits(kernels.soft_cap(every_kind(), 30.0), soft_cap(every_kind(), 30.0))


def test_rms_norm(kernels: Kernels, same_bits: Same) -> None:
    for shape in ((1, 1), (2, 15), (3, 2, 16), (5, 100), (64, 640)):
        x, weight = numbers(*shape), numbers(shape[-1], seed=1)
        same_bits(kernels.rms_norm(x, weight, 1e-6), rms_norm(x, weight, 1e-6))
        same_bits(kernels.rms_norm(x, None, 1e-5), rms_norm(x, None, 1e-5))
    for size in (0.0, 1e-30, 1e30):
        with np.errstate(all="ignore"):
            same_bits(
                kernels.rms_norm(numbers(2, 33, size=size), None, 0.0), rms_norm(numbers(2, 33, size=size), None, 0.0)
            )


@pytest.mark.parametrize("pairing", ["adjacent", "halves"])
def test_rope(pairing: str, kernels: Kernels, same_bits: Same) -> None:
    for tokens, heads, width, half in ((1, 1, 2, 1), (3, 2, 10, 3), (40, 9, 64, 32)):
        x, cos, sin = numbers(tokens, heads, width), numbers(tokens, half, seed=1), numbers(tokens, half, seed=2)
        same_bits(kernels.rope(x, cos, sin, pairing), rope(x, cos, sin, pairing))  # type: ignore[arg-type]


# T, H, K, Hd, S, window, cap: decode, prefill, parts of a prompt, widths that are no multiple of the lanes
ATTENTIONS = [
    (1, 1, 1, 16, 1, None, None),
    (1, 4, 2, 64, 33, None, None),
    (2, 4, 1, 40, 37, None, None),
    (3, 3, 3, 5, 64, 9, None),
    (17, 4, 2, 80, 50, 7, None),
    (64, 2, 1, 256, 64, None, 30.0),
    (23, 6, 3, 64, 41, 3, 20.0),
]


@pytest.mark.parametrize("case", ATTENTIONS, ids=str)
@pytest.mark.parametrize("kind", [np.float16, np.float32, Q8_0_LAYOUT], ids=["f16", "f32", "q8_0"])
def test_attend(case: tuple[int, ...], kind: Any, kernels: Kernels, same_bits: Same) -> None:
    tokens, heads, kv, width, keys, window, cap = case
    width = -(-width // 32) * 32 if kind == Q8_0_LAYOUT else width
    q, k, v = numbers(tokens, heads, width, size=3), numbers(keys, kv, width, seed=1), numbers(keys, kv, width, seed=2)
    positions = np.arange(keys - tokens, keys)
    options = dict(scale=width**-0.5, window=window, cap=cap)
    args = (q, as_rows(k, np.dtype(kind)), as_rows(v, np.dtype(kind)), positions)
    same_bits(kernels.attend(*args, **options), attend_ordered(*args, **options))


# T, H, K, Hd, Vd, S, window, sinks: decode and prefill, narrower and wider values, those of gpt-oss, MiMo and MLA
WIDTHS = [
    (1, 4, 2, 64, 64, 33, 9, True),
    (17, 4, 2, 64, 64, 50, None, True),
    (1, 4, 2, 48, 32, 37, None, False),
    (9, 4, 2, 24, 83, 40, 7, True),
    (6, 3, 1, 72, 64, 20, None, False),
]


@pytest.mark.parametrize("case", WIDTHS, ids=str)
@pytest.mark.parametrize("kind", [np.float16, np.float32, Q8_0_LAYOUT], ids=["f16", "f32", "q8_0"])
def test_attend_with_sinks_and_values_of_another_width(
    case: tuple[int, ...], kind: Any, kernels: Kernels, same_bits: Same
) -> None:
    tokens, heads, kv, width, value_width, keys, window, with_sinks = case
    if kind == Q8_0_LAYOUT:  # whole blocks
        width, value_width = -(-width // 32) * 32, -(-value_width // 32) * 32
    q, k = numbers(tokens, heads, width, size=3), as_rows(numbers(keys, kv, width, seed=1), np.dtype(kind))
    v = as_rows(numbers(keys, kv, value_width, seed=2), np.dtype(kind))
    sinks = numbers(heads, seed=3, size=6) if with_sinks else None
    args = (q, k, v, np.arange(keys - tokens, keys))
    options = dict(scale=width**-0.5, window=window, cap=None, sinks=sinks)
    same_bits(kernels.attend(*args, **options), attend_ordered(*args, **options))
    if value_width < width:  # a part of the keys, as in latent attention
        args = (q, k, first_numbers(k, value_width), args[3])
        same_bits(kernels.attend(*args, **options), attend_ordered(*args, **options))


@pytest.mark.parametrize("sink", [np.inf, -np.inf, np.nan, 200.0, -200.0])
def test_attend_with_extreme_sinks(sink: float, kernels: Kernels, same_bits: Same) -> None:
    q, k, v = numbers(5, 2, 32), numbers(20, 1, 32, seed=1), numbers(20, 1, 32, seed=2)
    k[17, 0, 4] = np.nan
    options = dict(scale=0.2, sinks=np.array([sink, 0.5], np.float32))
    with np.errstate(all="ignore"):
        want = attend_ordered(q, k, v, np.arange(15, 20), **options)
    same_bits(kernels.attend(q, k, v, np.arange(15, 20), **options), want)


@pytest.mark.parametrize("kind", [np.float16, np.float32, Q8_0_LAYOUT], ids=["f16", "f32", "q8_0"])
def test_attend_with_values_that_are_not_finite(kind: Any, kernels: Kernels, same_bits: Same) -> None:
    """A later token's infinity reaches no earlier one; a NaN score makes its own query's output NaN. A block that has
    either is NaN."""
    q, k, v = numbers(9, 2, 32), numbers(20, 1, 32, seed=1), numbers(20, 1, 32, seed=2)
    v[15, 0, 3], k[17, 0, 4], k[19, 0, 5] = np.inf, np.nan, -np.inf
    k, v = as_rows(k, np.dtype(kind)), as_rows(v, np.dtype(kind))
    positions = np.arange(11, 20)
    with np.errstate(invalid="ignore"):
        want = attend_ordered(q, k, v, positions, scale=0.2)
        got = kernels.attend(q, k, v, positions, scale=0.2)
    same_bits(got, want)
    assert np.isfinite(got[:4]).all() and np.isnan(got[6:]).all()
    assert np.isnan(got[4, :32]).all() if kind == Q8_0_LAYOUT else np.isinf(got[4, 3])


@pytest.mark.parametrize("kind", [np.float32, Q8_0_LAYOUT], ids=["f32", "q8_0"])
def test_attend_does_not_depend_on_the_split(kind: Any, kernels: Kernels, same_bits: Same) -> None:
    q, k, v = numbers(21, 4, 64), numbers(21, 2, 64, seed=1), numbers(21, 2, 64, seed=2)
    k, v = as_rows(k, np.dtype(kind)), as_rows(v, np.dtype(kind))
    whole = kernels.attend(q, k, v, np.arange(21), scale=0.125, window=6)
    for t in range(21):
        one = kernels.attend(q[t : t + 1], k[: t + 1], v[: t + 1], np.array([t]), scale=0.125, window=6)
        same_bits(one[0], whole[t])


def test_shapes_and_positions_that_do_not_fit_are_refused(kernels: Kernels) -> None:
    q, k = numbers(2, 4, 16), numbers(5, 2, 16)
    with pytest.raises(ValueError, match="position -1 sees none"):
        kernels.attend(q, k, k, np.array([-1, 4]), scale=1.0)
    with pytest.raises(ValueError, match="position 9 sees none of 5 keys"):
        kernels.attend(q, k, k, np.array([4, 9]), scale=1.0, window=5)
    with pytest.raises(ValueError, match="differ in shape"):
        kernels.attend(q, k, k[:4], np.array([3, 4]), scale=1.0)
    with pytest.raises(ValueError, match="shapes do not fit"):
        kernels.attend(numbers(2, 3, 16), k, k, np.array([3, 4]), scale=1.0)
    with pytest.raises(ValueError, match="3 sinks for 4 heads"):
        kernels.attend(q, k, k, np.array([3, 4]), scale=1.0, sinks=numbers(3))
    with pytest.raises(ValueError, match="no cache has rows of float64"):
        kernels.attend(q, k.astype(np.float64), k.astype(np.float64), np.array([3, 4]), scale=1.0)
    blocks = as_rows(numbers(5, 2, 32), Q8_0_LAYOUT)
    with pytest.raises(ValueError, match="shapes do not fit"):  # queries of 16 numbers, keys of a block
        kernels.attend(q, blocks, blocks, np.array([3, 4]), scale=1.0)
    with pytest.raises(ValueError, match="positions"):
        kernels.attend(q, k, k, np.array([4]), scale=1.0)
    with pytest.raises(ValueError, match="shapes do not fit"):
        kernels.rms_norm(q, numbers(15), 1e-6)
    with pytest.raises(ValueError, match="shapes do not fit"):
        kernels.rope(q, numbers(2, 9), numbers(2, 9), "halves")
    with pytest.raises(ValueError, match="shapes do not fit"):
        kernels.glu(numbers(2, 3), numbers(2, 4), "silu")
    with pytest.raises(ValueError, match="swish"):
        kernels.glu(numbers(2, 3), numbers(2, 3), "swish")
