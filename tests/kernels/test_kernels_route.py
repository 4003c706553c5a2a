"""Routing in one call: the bits of the readable definition, for what a file can ask for and for numbers it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ref_engine.kernels.moe import route
from ref_engine.kernels.ops import Kernels
from ref_engine.reference import moe
from ref_engine.spec import RoutingSpec

F32 = NDArray[np.float32]
Same = Callable[[F32, F32], None]

# (T, E, k): one token, odd numbers, fewer than a vector, DeepSeek-V3's and Kimi K2's, all that there are
SIZES = [(1, 128, 8), (3, 7, 7), (17, 60, 4), (2, 1, 1), (64, 384, 8), (5, 33, 20)]
SPECS = {
    "qwen3": RoutingSpec("softmax", normalise=True),
    "mixtral, weights as they are": RoutingSpec("softmax"),
    "deepseek-v3": RoutingSpec("sigmoid", normalise=True, scale=2.5, bias="exp_probs_b.bias"),
    "gpt-oss": RoutingSpec("softmax_weight"),
    "llama 4": RoutingSpec("sigmoid", select_by="logits"),
    "by the sigmoid": RoutingSpec("softmax", select_by="sigmoid", normalise=True),
    "grok": RoutingSpec("softmax", soft_cap=30.0),
}


def drawn(tokens: int, experts: int, seed: int, ties: bool = False) -> tuple[F32, F32]:
    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal((tokens, experts))).astype(np.float32)
    return np.round(logits) if ties else logits, rng.standard_normal(experts).astype(np.float32)


def same(kernels: Kernels, same_bits: Same, logits: F32, n_used: int, r: RoutingSpec, bias: F32 | None) -> None:
    with np.errstate(all="ignore"):
        ids, weights = moe.route(logits, n_used, r, bias)
    got_ids, got = route(kernels, logits, n_used, r, bias)
    assert got_ids.dtype == np.int32 and got_ids.tolist() == ids.tolist()
    same_bits(got, weights)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_route(name: str, size: tuple[int, int, int], kernels: Kernels, same_bits: Same) -> None:
    tokens, experts, n_used = size
    for seed, ties in ((1, False), (2, True)):
        logits, bias = drawn(tokens, experts, seed, ties)
        same(kernels, same_bits, logits, n_used, SPECS[name], bias if SPECS[name].bias else None)


@pytest.mark.parametrize(("groups", "used", "experts"), [(8, 4, 256), (4, 1, 12), (3, 3, 3), (2, 1, 40)])
def test_groups(groups: int, used: int, experts: int, kernels: Kernels, same_bits: Same) -> None:
    """Also where the groups hold fewer experts than a token takes."""
    r = replace(SPECS["deepseek-v3"], groups=groups, groups_used=used)
    for n_used in (1, min(8, experts)):
        for seed, ties in ((3, False), (4, True)):
            same(kernels, same_bits, *(drawn(9, experts, seed, ties)[:1]), n_used, r, drawn(9, experts, seed)[1])


@pytest.mark.parametrize("name", SPECS)
def test_logits_that_are_not_finite(name: str, kernels: Kernels, same_bits: Same) -> None:
    logits, _ = drawn(6, 40, 5)
    logits[0, 3], logits[1, 4], logits[2, 5], logits[3], logits[4, ::2], logits[5] = (
        np.nan, np.inf, -np.inf, -np.inf, -1e30, np.nan,
    )  # fmt: skip
    same(kernels, same_bits, logits, 5, SPECS[name], None)


def test_what_has_no_kernel_takes_the_definition(kernels: Kernels, same_bits: Same) -> None:
    logits, _ = drawn(4, 24, 6)
    same(kernels, same_bits, logits, 3, RoutingSpec("sqrt_softplus"), None)
    given = np.array([[1, 2]] * 4, np.int32)
    ids, weights = route(kernels, logits, 2, SPECS["qwen3"], None, given)
    want_ids, want = moe.route(logits, 2, SPECS["qwen3"], None, given)
    assert (ids == want_ids).all()
    same_bits(weights, want)
    names: list[str] = []
    route(kernels, logits, 2, SPECS["qwen3"], tap=lambda name, x: (names.append(name), x)[1])
    assert "ffn_moe_topk" in names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 5}, "1 of 5 groups of 24 experts"),
        ({"groups_used": 2}, "2 of 1 groups"),
        ({"bias": np.zeros(23, np.float32)}, "a bias of 23 for 24 experts"),
        ({"gate": "tanh"}, "has no kernel"),
        ({"weights": np.zeros((4, 3), np.float32)}, "shapes do not fit"),
        ({"ids": np.zeros((4, 25), np.int32), "weights": np.zeros((4, 25), np.float32)}, "shapes do not fit"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str, kernels: Kernels) -> None:
    args: dict[str, Any] = {
        "logits": np.zeros((4, 24), np.float32), "bias": None, "gate": "softmax", "select_by": "gate", "groups": 1,
        "groups_used": 1, "cap": 0.0, "inverse_cap": 0.0, "normalise": True, "least": 1e-4, "scale": None,
        "ids": np.zeros((4, 2), np.int32), "weights": np.zeros((4, 2), np.float32), "n_threads": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        kernels.table.route(*(args | change).values())
