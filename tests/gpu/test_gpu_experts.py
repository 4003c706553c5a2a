"""A mixture's experts on the device, against the NumPy definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import standin
from emulator import why_not
from test_gpu_products import drawn

from ref_engine.errors import ModelError
from ref_engine.files.types import GGMLType
from ref_engine.gpu import module
from ref_engine.gpu.device import Device
from ref_engine.gpu.experts import moe_ffn
from ref_engine.gpu.products import Products
from ref_engine.reference import moe
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
    return rng.standard_normal((tokens, D)).astype(np.float32), ids, rng.random((tokens, k)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [1, 3, 20])
def test_experts(form: str, tokens: int, place: Device, error: Nmse) -> None:
    x, ids, weights = inputs(tokens)
    for mode, truth in (("f32", moe.moe_ffn_f32), ("q8", moe.moe_ffn_q8)):
        if mode == "q8" and tokens > 8:
            continue  # tiles of float16
        want = truth(x, ids, weights, FORMS[form])
        got = moe_ffn(Products(mode), place.put(x), place.put(ids), place.put(weights), there(FORMS[form], place))
        assert got.shape == want.shape and got.dtype == np.float32
        # A last bit may round an activation of the second map to its neighbour
        assert error(got.get(), want).max() < {"f32": 1e-11, "q8": 1e-6}[mode], mode


def test_many_tokens_in_half_precision(place: Device, error: Nmse) -> None:
    x, ids, weights = inputs(40)
    experts = FORMS["gated"]
    got = moe_ffn(Products("q8"), place.put(x), place.put(ids), place.put(weights), there(experts, place))
    assert error(got.get(), moe.moe_ffn_f32(x, ids, weights, experts)).max() < 1e-5


def test_few_tokens_ask_the_device_for_nothing(place: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """And launch a kernel for each map, one for each rounding, and one for the sum."""
    x, ids, weights = (place.put(a) for a in inputs(2))
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
    assert launched.count("matvec_q8_1") == 3 and launched[-1] == "weighted_sum" and len(launched) <= 7


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


def test_an_expert_that_is_not_there(place: Device) -> None:
    x, ids, weights = inputs(9)
    ids[4, 1] = E
    with pytest.raises(ModelError, match=r"w: expert 5 is not one of 0\.\.4"):
        moe_ffn(Products("q8"), place.put(x), place.put(ids), place.put(weights), there(FORMS["plain"], place))
