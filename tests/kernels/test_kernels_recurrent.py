"""Recurrences, convolutions over time and activations: the bits of the functions in reference/."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from test_kernels_layers import every_kind, numbers

from ref_engine.compat import native
from ref_engine.kernels import recurrent
from ref_engine.kernels.ops import Kernels
from ref_engine.reference import ffn
from ref_engine.reference.conv import causal_conv
from ref_engine.reference.delta import gated_delta_rule
from ref_engine.reference.ssm import ssm_scan

F32 = NDArray[np.float32]
Same = Callable[[F32, F32], None]

# T, H, Hd, Vd, and whether each feature of the keys has a decay of its own: decode, prefill, widths that are no lanes
DELTAS = [
    (1, 1, 16, 16, False), (3, 2, 24, 40, False), (17, 3, 64, 48, True), (64, 2, 128, 128, False), (2, 2, 5, 3, True),
]  # fmt: skip
# T, H, P, N, G, and whether each number of the state has a decay of its own: Mamba 1 and 2, lightning attention, rests
SCANS = [
    (5, 48, 1, 16, 1, True), (17, 4, 64, 128, 2, False), (3, 6, 16, 24, 3, False), (1, 2, 8, 64, 1, False),
    (2, 5, 3, 7, 1, True), (64, 7, 1, 16, 1, True), (4, 32, 1, 5, 2, True), (6, 4, 4, 16, 2, False),
]  # fmt: skip


def drawn_delta(T: int, H: int, Hd: int, Vd: int, each: bool) -> tuple[F32, ...]:
    decay = -np.abs(numbers(T, H, Hd if each else 1, seed=3))
    beta = 1 / (1 + np.exp(numbers(T, H, seed=4)))
    given = (
        numbers(T, H, Hd),
        numbers(T, H, Hd, seed=1),
        numbers(T, H, Vd, seed=2),
        decay,
        beta,
        numbers(Hd, H, Vd, seed=5),
    )
    return given


def drawn_scan(T: int, H: int, P: int, N: int, G: int, each: bool) -> tuple[F32, ...]:
    dt, a = np.abs(numbers(T, H, seed=1)), -np.abs(numbers(H, N if each else 1, seed=2, size=3))
    return numbers(T, H, P), dt, a, numbers(T, G, N, seed=3), numbers(T, G, N, seed=4), numbers(N, H, P, seed=5)


@pytest.mark.parametrize("case", DELTAS, ids=str)
def test_gated_delta_rule(case: tuple[int, int, int, int, bool], kernels: Kernels, same_bits: Same) -> None:
    given = drawn_delta(*case)
    before = given[-1].copy()
    for got, want in zip(recurrent.gated_delta_rule(kernels, *given), gated_delta_rule(*given), strict=True):
        same_bits(got, want)
    same_bits(given[-1], before)


@pytest.mark.parametrize("case", SCANS, ids=str)
def test_ssm_scan(case: tuple[int, int, int, int, int, bool], kernels: Kernels, same_bits: Same) -> None:
    given = drawn_scan(*case)
    before = given[-1].copy()
    for got, want in zip(recurrent.ssm_scan(kernels, *given), ssm_scan(*given), strict=True):
        same_bits(got, want)
    same_bits(given[-1], before)


# T, C, W, step: fewer tokens than the filter is wide, a rest of channels, n-grams' steps, a filter of one
CONVOLUTIONS = [
    (1, 16, 4, 1),
    (2, 40, 4, 1),
    (17, 37, 4, 1),
    (64, 96, 3, 1),
    (5, 20, 3, 4),
    (30, 8, 4, 3),
    (3, 5, 1, 1),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_causal_conv(case: tuple[int, int, int, int], kernels: Kernels, same_bits: Same) -> None:
    tokens, channels, width, step = case
    x, before = numbers(tokens, channels), numbers((width - 1) * step, channels, seed=1)
    weight = numbers(channels, width, seed=2)
    weight[:, 0] *= -0.0  # whose products are zeros of either sign
    got, want = recurrent.causal_conv(kernels, x, before, weight, step), causal_conv(x, before, weight, step)
    for a, b in zip(got, want, strict=True):
        same_bits(a, b)
    assert not np.shares_memory(got[1], x) and not np.shares_memory(got[1], before)


@pytest.mark.parametrize("name", sorted(ffn.ACTIVATIONS))
def test_activation(name: str, kernels: Kernels, same_bits: Same) -> None:
    with np.errstate(all="ignore"):
        for x in (every_kind(), numbers(1, 1), numbers(3, 17, size=5), numbers(2, 40000), numbers(0, 4)):
            same_bits(recurrent.activation(kernels, x, name), ffn.activation(x, name))


def test_what_is_not_finite(kernels: Kernels, same_bits: Same) -> None:
    """Infinities, NaNs, and numbers that are below the normal ones after a decay."""
    q, k, v, decay, beta, state = drawn_delta(9, 2, 32, 32, True)
    v[4, 0, 3], k[6, 1, 5], decay[2, 0], state[0, 0, 0] = np.inf, np.nan, -87.5, 1e-38
    x, dt, a, b, c, h = drawn_scan(9, 2, 16, 16, 1, False)
    x[4, 0, 3], b[6, 0, 5], dt[2, 0], h[0] = np.inf, np.nan, 60, 1e-38
    with np.errstate(all="ignore"):
        pairs = [
            (
                recurrent.gated_delta_rule(kernels, q, k, v, decay, beta, state),
                gated_delta_rule(q, k, v, decay, beta, state),
            ),
            (recurrent.ssm_scan(kernels, x, dt, a, b, c, h), ssm_scan(x, dt, a, b, c, h)),
        ]
    for got, want in pairs:
        for mine, other in zip(got, want, strict=True):
            same_bits(mine, other)
            assert np.isnan(other).any() and np.isfinite(other).any()


def test_parts_of_a_sequence(kernels: Kernels, same_bits: Same) -> None:
    *given, state = drawn_delta(21, 2, 32, 48, False)
    whole, end = recurrent.gated_delta_rule(kernels, *given, state)
    for part in (slice(0, 8), slice(8, 9), slice(9, 21)):
        y, state = recurrent.gated_delta_rule(kernels, *(x[part] for x in given), state)
        same_bits(y, whole[part])
    same_bits(state, end)
    x, dt, a, b, c, state = drawn_scan(21, 3, 16, 24, 1, False)
    whole, end = recurrent.ssm_scan(kernels, x, dt, a, b, c, state)
    for part in (slice(0, 8), slice(8, 9), slice(9, 21)):
        y, state = recurrent.ssm_scan(kernels, x[part], dt[part], a, b[part], c[part], state)
        same_bits(y, whole[part])
    same_bits(state, end)


def test_what_does_not_fit_is_refused(isa: str) -> None:
    """Before C sees it."""
    kernels = Kernels(native.Table(isa), 1)
    delta, scan = drawn_delta(4, 2, 8, 16, False), drawn_scan(4, 2, 16, 8, 1, False)
    for i in range(6):
        for axis in range(delta[i].ndim):
            wrong = [*delta]
            wrong[i] = np.ascontiguousarray(np.repeat(delta[i], 3, axis=axis))
            if (i, axis) != (2, 2):  # wider values are another model's
                with pytest.raises(ValueError, match="recurrence"):
                    recurrent.gated_delta_rule(kernels, *wrong)
        for axis in range(scan[i].ndim):
            wrong = [*scan]
            wrong[i] = np.ascontiguousarray(np.repeat(scan[i], 3, axis=axis))
            if (i, axis) != (0, 2):
                with pytest.raises(ValueError, match="recurrence"):
                    recurrent.ssm_scan(kernels, *wrong)
    with pytest.raises(ValueError, match="the state before"):
        recurrent.gated_delta_rule(kernels, *delta[:2], numbers(4, 2, 48), *delta[3:])
    x, before, weight = numbers(4, 8), numbers(3, 8), numbers(8, 4)
    for wrong_conv in (
        (x, before[:2], weight, 1),
        (x, before, weight[:7], 1),
        (x, before, weight, 2),
        (x[:0], before, weight, 1),
    ):
        with pytest.raises(ValueError, match="recurrence"):
            recurrent.causal_conv(kernels, *wrong_conv)
    with pytest.raises(ValueError, match="has no kernel"):
        native.activate(kernels.table, "swish", numbers(3), numbers(3), 1)
    with pytest.raises(ValueError, match="the output"):
        native.activate(kernels.table, "silu", numbers(3), numbers(4), 1)
