"""A mixture's experts on the device, against the NumPy definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import standin
from emulator import why_not
from test_gpu_products import drawn, x_of

from ref_engine.errors import ModelError
from ref_engine.files.types import GGMLType
from ref_engine.gpu import module
from ref_engine.gpu.device import Device
from ref_engine.gpu.experts import moe_ffn
from ref_engine.gpu.groups import PAIRS, count_experts, grouped
from ref_engine.gpu.packed import BLOCKS, PLAIN, packed
from ref_engine.gpu.products import Products
from ref_engine.quant.types import BLOCK_TYPES
from ref_engine.reference import moe
from ref_engine.reference.linear import linear_f32, linear_q8
from ref_engine.reference.moe import Experts, Stack
from ref_engine.weights import UnpackCache

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]
E, D, F = 5, 64, 32


@pytest.fixture
def place(cupy: standin.Cupy) -> Device:
    return Device(cupy, lambda name: True)


def stack(seed: int, rows: int, columns: int, type: GGMLType, bias: bool = False, scale: bool = False) -> Stack:
    rng = np.random.default_rng(seed)
    return Stack(
        drawn(type, (E, rows, columns), seed),
        rng.standard_normal((E, rows)).astype(np.float32) if bias else None,
        rng.standard_normal(E).astype(np.float32) if scale else None,
    )


def there(experts: Experts, place: Device) -> Experts:
    def put(s: Stack | None) -> Any:
        if s is None:
            return None
        weight = replace(s.weight, place=place, kept={})
        return Stack(weight, *(None if a is None else place.put(a) for a in (s.bias, s.scale)))

    return replace(experts, up=put(experts.up), down=put(experts.down), gate=put(experts.gate))


Q = GGMLType.Q8_0
FORMS = {
    "gated": Experts(stack(1, F, D, Q), stack(2, D, F, GGMLType.Q4_0), "silu", stack(3, F, D, Q)),
    "plain": Experts(stack(1, F, D, Q), stack(2, D, F, Q), "relu_sqr"),
    "fused": Experts(stack(1, 2 * F, D, Q), stack(2, D, F, Q), "gelu", fused=True),
    "weighed input": Experts(stack(1, F, D, Q), stack(2, D, F, Q), "silu", stack(3, F, D, Q), weigh_input=True),
    "biased": Experts(
        stack(1, F, D, Q, bias=True), stack(2, D, F, Q, bias=True), "swiglu_oai", stack(3, F, D, Q, bias=True),
        constants=(1.702, 7.0),
    ),
    "scaled": Experts(
        stack(1, F, D, Q, scale=True), stack(2, D, F, Q, bias=True, scale=True), "silu", stack(3, F, D, Q, scale=True)
    ),
    "of two kinds": Experts(stack(1, F, D, GGMLType.F32), stack(2, D, F, GGMLType.BF16), "silu", stack(3, F, D, Q)),
}  # fmt: skip


def inputs(tokens: int, k: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(tokens)
    ids = np.stack([rng.permutation(E - 1)[:k] for _ in range(tokens)]).astype(np.int32)  # the last one is never chosen
    x = rng.standard_normal((tokens, D)).astype(np.float32) / 2  # squared, its scales are still float16
    return x, ids, rng.random((tokens, k)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [1, 3, 20])
def test_experts(form: str, tokens: int, place: Device, error: Nmse) -> None:
    x, ids, weights = inputs(tokens)
    for mode, truth in (("f32", moe.moe_ffn_f32), ("q8", moe.moe_ffn_q8)):
        want = truth(x, ids, weights, FORMS[form])
        got = moe_ffn(Products(mode), place.put(x), place.put(ids), place.put(weights), there(FORMS[form], place))
        assert got.shape == want.shape and got.dtype == np.float32
        # A last bit may round an activation of the second map to its neighbour
        assert error(got.get(), want).max() < {"f32": 1e-11, "q8": 1e-6}[mode], mode


@pytest.mark.parametrize("type", [*BLOCKS, *PLAIN], ids=lambda t: t.name)
def test_an_expert_for_its_tokens(type: GGMLType, place: Device, error: Nmse) -> None:
    """Groups of more and of fewer pairs than a tile has, with inputs for each token and for each choice."""
    columns = 2 * (BLOCK_TYPES[type].size if type in BLOCK_TYPES else 18)
    weight = drawn(type, (E, 5, columns))
    w = packed(replace(weight, place=place, kept={}))
    rng = np.random.default_rng(type.value)
    ids = rng.choice(E, (17, 2), p=[0.6, 0.0, 0.2, 0.15, 0.05]).astype(np.int32)
    groups = grouped(place.put(ids.reshape(-1)), E)
    bias = rng.standard_normal((E, 5)).astype(np.float32)
    for mode, truth in (("f32", linear_f32), ("q8", linear_q8)):
        for share in (2, 1):
            x, maps = x_of(34 // share, columns), Products(mode)
            got = maps.grouped(maps.input(place.put(x), type), w, place.put(bias), groups, share).get()
            want = [truth(x[p // share][None], weight.expert(e), bias[e])[0] for p, e in enumerate(ids.reshape(-1))]
            assert error(got, np.array(want)).max() < 1e-11, (mode, share)


@pytest.mark.parametrize(
    ("n", "n_expert", "drawn_from"),
    [(1, 1, 1), (31, 3, 3), (33, 3, 3), (100, 5, 1), (130, 6, 4), (160, 384, 384), (1000, 384, 384), (700, 7, 9)],
)
def test_pairs_are_sorted(n: int, n_expert: int, drawn_from: int, place: Device) -> None:
    """All on one expert, idle ones, more experts than pairs; ids that are no expert's are in no tile."""
    ids = np.random.default_rng(n).integers(0, drawn_from, n).astype(np.int32)
    if drawn_from > n_expert:
        ids[::5], ids[3] = -1, -(2**31)
    groups = grouped(place.put(ids), n_expert)
    known = np.flatnonzero((ids >= 0) & (ids < n_expert))
    order, tiles = groups.order.get()[: len(known)], groups.tiles.get()
    np.testing.assert_array_equal(order, known[np.argsort(ids[known], kind="stable")])
    used = tiles[tiles[:, 2] > 0]
    assert (tiles[len(used) :, 2] == 0).all() and used[:, 2].max(initial=0) <= PAIRS
    assert np.repeat(used[:, 0], used[:, 2]).tolist() == ids[order].tolist()
    np.testing.assert_array_equal(used[:, 1], np.cumsum(used[:, 2]) - used[:, 2])
    counts = np.bincount(ids[known], minlength=n_expert)
    assert len(used) == (-(-counts // PAIRS)).sum()  # an expert's matrix is read no more often than it has to be


def test_tokens_are_counted(place: Device) -> None:
    """Where the counts are, by one launch; the first time into an array that holds anything."""
    ids = np.array([[0, 6], [2, 6], [6, 5]], np.int32)
    counts = count_experts(place.put(ids)[:, ::-1], 7)
    assert counts.get().tolist() == [1, 0, 1, 0, 0, 1, 3]
    assert count_experts(place.put(ids - 1), 7, counts) is counts and counts.dtype == np.int64
    want = moe.count_experts(ids[1:] - 1, 7, moe.count_experts(ids, 7)) + np.eye(7, dtype=np.int64)[5]
    np.testing.assert_array_equal(counts.get(), want)  # an expert -1 counts nowhere


@pytest.mark.parametrize("tokens", [2, 20])
def test_tokens_ask_the_device_for_nothing(tokens: int, place: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """And launch a kernel for each map, one to round each input, and one for the sum; for many, two for the groups."""
    x, ids, weights = (place.put(a) for a in inputs(tokens))
    experts, launched = there(FORMS["gated"], place), []
    moe_ffn(Products("q8"), x, ids, weights, experts)
    plain = module.get
    monkeypatch.setattr(module, "get", lambda *names: launched.append(names[1]) or plain(*names))

    def refused(*args: object, **given: object) -> None:
        raise AssertionError("a copy to the host")

    for method in ("get", "tolist", "item", "__bool__", "__int__", "__float__"):
        if hasattr(standin.Array, method):
            monkeypatch.setattr(standin.Array, method, refused)
    moe_ffn(Products("q8"), x, ids, weights, experts)
    assert launched.count("matvec_q8_1" if tokens == 2 else "grouped_q8") == 3
    assert launched[-1] == "weighted_sum" and launched.count("round_q8_0") == 2  # one for both maps of x
    assert len(launched) == (6 if tokens == 2 else 8)


def test_a_tap_sees_and_changes_the_steps(place: Device, error: Nmse) -> None:
    x, ids, weights = inputs(4)
    experts, seen = FORMS["biased"], []

    def tap(name: str, value: Any) -> Any:
        seen.append(name)
        return value * np.float32(2) if name == "ffn_moe_up" else value

    want = moe.moe_ffn_f32(x, ids, weights, experts, tap=tap)
    names, seen[:] = list(seen), []
    put = there(experts, place)
    got = moe_ffn(Products("f32"), place.put(x), place.put(ids), place.put(weights), put, tap=tap)
    assert error(got.get(), want).max() < 1e-11 and seen == names


def test_memory_is_that_of_the_file(place: Device) -> None:
    """However they are used: for few tokens, for many, and with a tap."""
    x, ids, weights = (place.put(a) for a in inputs(12))
    experts = there(FORMS["plain"], place)
    before = place.cupy.pool.used_bytes()
    for n, tap in ((2, lambda name, value: value), (2, None), (12, None)):
        moe_ffn(Products("q8"), x[:n], ids[:n], weights[:n], experts, tap=tap)
    assert place.cupy.pool.used_bytes() - before == experts.up.weight.nbytes + experts.down.weight.nbytes


def test_a_budget_for_experts_is_kept(place: Device, error: Nmse) -> None:
    """Stacks that may not be kept are composed, expert by expert."""
    x, ids, weights = inputs(3)
    experts = there(FORMS["plain"], place)
    small = UnpackCache(1 << 13)
    for one in (experts.up, experts.down):
        object.__setattr__(one.weight, "expert_cache", small)
    got = moe_ffn(Products("f32"), place.put(x), place.put(ids), place.put(weights), experts)
    assert error(got.get(), moe.moe_ffn_f32(x, ids, weights, FORMS["plain"])).max() < 1e-11
    assert "packed" not in experts.up.weight.kept and small.held <= small.budget


def test_an_expert_that_is_not_there(place: Device, error: Nmse) -> None:
    """Its token gets no number, and nothing outside the weights is read; who looks at the steps is told."""
    x, ids, weights = inputs(19)
    want = moe.moe_ffn_f32(x, ids, weights, FORMS["biased"])
    ids[4, 1], ids[7, 0] = E, -2
    arguments, put = [place.put(a) for a in (x, ids, weights)], there(FORMS["biased"], place)
    got = moe_ffn(Products("f32"), *arguments, put).get()
    lost = np.isnan(got).all(axis=1)
    assert np.flatnonzero(lost).tolist() == [4, 7]
    assert error(got[~lost], want[~lost]).max() < 1e-11
    with pytest.raises(ModelError, match=r"w: expert 5 is not one of 0\.\.4"):
        moe_ffn(Products("f32"), *arguments, put, tap=lambda name, value: value)


def test_many_experts(place: Device, error: Nmse) -> None:
    """384 of them, eight for each of eleven tokens: most of them idle."""
    rng, n = np.random.default_rng(5), 384
    up, down = (Stack(drawn(Q, (n, rows, columns), rows)) for rows, columns in ((F, D), (D, F)))
    ids = np.array([rng.permutation(n)[:8] for _ in range(11)], np.int32)
    ids[5:, 0] = 383
    x, weights = x_of(11, D), rng.random((11, 8)).astype(np.float32)
    experts = Experts(up, down, "relu_sqr")
    got = moe_ffn(Products("f32"), *(place.put(a) for a in (x, ids, weights)), there(experts, place))
    assert error(got.get(), moe.moe_ffn_f32(x, ids, weights, experts)).max() < 1e-11
