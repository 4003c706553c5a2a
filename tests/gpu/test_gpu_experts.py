"""A mixture's experts by kernels, thread by thread on the host: what the NumPy definition gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import standin
from emulator import why_not
from test_gpu_products import drawn, there

from ref_engine.files.types import GGMLType
from ref_engine.gpu.device import Device
from ref_engine.gpu.experts import DeviceExperts, grouped
from ref_engine.gpu.products import Products
from ref_engine.place import moved
from ref_engine.reference import moe
from ref_engine.reference.ffn import glu
from ref_engine.reference.moe import Experts, Stack

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture
def place(cupy: standin.Cupy) -> Device:
    return Device(cupy, lambda name: True)


@pytest.mark.parametrize("each", [1, 2, 4, 8])
@pytest.mark.parametrize(("tokens", "k", "n_experts"), [(1, 1, 1), (1, 6, 300), (5, 4, 7), (23, 2, 3)])
def test_groups(each: int, tokens: int, k: int, n_experts: int, place: Device) -> None:
    """Each slot is in one group, of its expert; some experts twice for one token."""
    ids = np.random.default_rng(tokens).integers(0, n_experts, (tokens, k)).astype(np.int32)
    g = grouped(place.put(ids), n_experts, each)
    found = np.full(ids.size, -1)
    for expert, first, n in g.groups.get().tolist():
        assert 0 <= n <= each
        for slot in g.slots.get()[first : first + n].tolist():
            assert found[slot] == -1
            found[slot] = expert
    np.testing.assert_array_equal(found, ids.reshape(-1))


def put(stack: Stack, place: Device) -> Stack:
    return Stack(there(stack.weight, place), moved(stack.bias, place), moved(stack.scale, place))


def case(**given: Any) -> dict[str, Any]:
    return {"type": GGMLType.Q4_K, "activation": "silu", "gate": True} | given


CASES = {
    "q4_k": case(),
    "plain": case(type=GGMLType.BF16, activation="gelu"),
    "biased": case(type=GGMLType.Q8_0, bias=True, activation="swiglu_oai", constants=(1.702, 7.0)),
    "scaled": case(type=GGMLType.MXFP4, bias=True, scale=True),
    "fused": case(fused=True, gate=False),
    "without a gate": case(gate=False, activation="relu_sqr", type=GGMLType.Q6_K),
    "weighed before": case(weigh_input=True),
    "another way": case(type=GGMLType.TQ2_0),
}


@pytest.mark.parametrize("mode", ["f32", "q8"])
@pytest.mark.parametrize("name", CASES)
def test_experts(name: str, mode: Any, place: Device, error: Nmse) -> None:
    rng, c = np.random.default_rng(5), CASES[name]
    E, D, F, k = 6, 256, 512, 3

    def stack(rows: int, columns: int, seed: int) -> Stack:
        bias = rng.standard_normal((E, rows)).astype(np.float32) if c.get("bias") else None
        scale = rng.standard_normal(E).astype(np.float32) if c.get("scale") else None
        weight = drawn(c["type"], (E, rows, columns), seed)
        return Stack(replace(weight, name=f"w{seed}"), bias, scale)

    fused = c.get("fused", False)
    experts = Experts(
        stack(2 * F if fused else F, D, 1), stack(D, F, 2), c["activation"], stack(F, D, 3) if c["gate"] else None,
        fused, c.get("constants", ()), c.get("weigh_input", False),
    )  # fmt: skip
    device = replace(
        experts,
        up=put(experts.up, place),
        down=put(experts.down, place),
        gate=experts.gate and put(experts.gate, place),
    )
    composed = moe.moe_ffn_f32 if mode == "f32" or name == "another way" else moe.moe_ffn_q8
    for tokens in (1, 3):
        x = rng.standard_normal((tokens, D)).astype(np.float32) / 16
        ids = np.array([rng.permutation(E)[:k] for _ in range(tokens)], np.int32)
        weights = rng.random((tokens, k)).astype(np.float32)
        want = composed(x, ids, weights, experts)
        got = DeviceExperts(Products(mode), glu)(place.put(x), place.put(ids), place.put(weights), device)
        # in q8 mode sums in another order round a few activations the other way
        assert error(got.get(), want).max() < (1e-10 if mode == "f32" else 1e-5)


def test_only_chosen_experts_are_read(place: Device) -> None:
    """The others hold nothing but NaN."""
    stacks = [drawn(GGMLType.Q8_0, (5, 32, 32), i) for i in range(2)]
    for s in stacks:
        s.data.reshape(5, 32, 34)[[0, 2, 4], :, :2] = np.frombuffer(np.float16(np.nan).tobytes(), np.uint8)
    experts = Experts(*[Stack(there(replace(s, name=f"w{i}"), place)) for i, s in enumerate(stacks)], "silu")
    x = np.random.default_rng(1).standard_normal((9, 32)).astype(np.float32)
    ids = np.tile(np.array([3, 1], np.int32), (9, 1))
    got = DeviceExperts(Products("q8"), glu)(
        place.put(x), place.put(ids), place.put(np.ones((9, 2), np.float32)), experts
    )
    assert np.isfinite(got.get()).all()
