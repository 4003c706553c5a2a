"""A mixture of experts in one call: the bits of the readable definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ref_engine.errors import ModelError
from ref_engine.files.types import GGMLType
from ref_engine.kernels import dispatch
from ref_engine.kernels import moe as fast
from ref_engine.kernels.moe import moe_ffn
from ref_engine.kernels.ops import Kernels
from ref_engine.reference.moe import Experts, Stack, moe_ffn_q8
from ref_engine.weights import UnpackCache, Weight

F32 = NDArray[np.float32]
Same = Callable[[F32, F32], None]


@dataclass(frozen=True)
class Case:
    """types: of up, gate and down. E experts, k used, T tokens, widths D and F."""

    types: tuple[str, str, str]
    E: int
    k: int
    T: int
    D: int
    F: int
    activation: str = "silu"
    constants: tuple[float, ...] = ()
    gated: bool = True
    fused: bool = False
    factors: bool = False  # biases and scales
    weigh_input: bool = False
    skewed: bool = False  # the same experts for every token, some of them twice
    one_call: bool = True


@dataclass(frozen=True)
class Drawn:
    x: F32
    ids: NDArray[np.int32]
    weights: F32
    experts: Experts
    want: F32

    def run(self, kernels: Kernels) -> F32:
        return moe_ffn(kernels, self.x, self.ids, self.weights, self.experts)


K4, Q8 = ("Q4_K", "Q4_K", "Q6_K"), ("Q8_0", "Q8_0", "Q8_0")
CASES = {
    "384 experts, one token": Case(K4, 384, 8, 1, 256, 256),
    "384 experts, 17 tokens": Case(Q8, 384, 8, 17, 32, 32),
    "one expert for two tokens": Case(("Q4_1", "Q4_1", "Q5_1"), 1, 1, 2, 64, 32),
    "K-quants": Case(("Q5_K", "Q4_K", "Q5_K"), 6, 2, 17, 256, 256),
    "two ways to round": Case(("Q5_0", "Q4_K", "Q4_0"), 5, 3, 17, 256, 96, factors=True),
    "plain weights, broken groups": Case(("F16", "BF16", "F32"), 4, 2, 17, 20, 33, factors=True),
    "plain and packed": Case(("Q4_1", "F32", "F16"), 4, 2, 2, 32, 33, "gelu", factors=True),
    "fused": Case(Q8, 7, 4, 17, 64, 96, fused=True, factors=True),
    "fused, halves that are no whole groups": Case(("F16", "F16", "F16"), 3, 2, 2, 20, 24, fused=True, one_call=False),
    "weights before": Case(Q8, 5, 2, 17, 32, 64, weigh_input=True),
    "weights before, plain": Case(("F32", "F16", "Q8_0"), 5, 1, 1, 32, 64, weigh_input=True, factors=True),
    "no gate": Case(Q8, 5, 5, 17, 32, 64, "relu_sqr", gated=False, factors=True),
    "no gate, gelu": Case(K4, 3, 1, 1, 256, 256, "gelu", gated=False),
    "relu": Case(Q8, 5, 2, 2, 32, 64, "relu"),
    "gpt-oss": Case(Q8, 8, 4, 17, 64, 64, "swiglu_oai", (1.702, 7.0), factors=True),
    "clamp": Case(Q8, 8, 2, 17, 64, 64, "swiglu_clamp", (0.7,)),
    "limit": Case(Q8, 8, 2, 1, 64, 64, "swiglu_limit", (0.3,)),
    "situ": Case(Q8, 8, 2, 17, 64, 64, "situ", (4.0, 25.0)),
    "situ, up as it is": Case(Q8, 8, 2, 2, 64, 64, "situ", (0.1, 0.0)),
    "skewed": Case(K4, 9, 8, 17, 256, 256, skewed=True),
    "levels": Case(("MXFP4", "IQ4_NL", "Q3_K"), 5, 3, 17, 256, 256, factors=True),
    "levels, two ways to round": Case(("Q2_K", "NVFP4", "IQ4_XS"), 4, 2, 17, 256, 256),
    "levels, fused": Case(("IQ2_S", "IQ2_S", "TQ1_0"), 4, 2, 17, 256, 256, fused=True),
    "no kernel": Case(("Q8_K", "Q4_K", "Q4_K"), 3, 2, 2, 256, 256, one_call=False),
}


@pytest.fixture(scope="session")
def drawn(make_weight: Callable[..., Weight]) -> Callable[[str], Drawn]:
    """name of a case -> its numbers and what the definition makes of them, computed once."""
    made: dict[str, Drawn] = {}

    def draw(name: str) -> Drawn:
        if name not in made:
            made[name] = _draw(CASES[name], make_weight)
        return made[name]

    return draw


def _draw(c: Case, make_weight: Callable[..., Weight]) -> Drawn:
    rng = np.random.default_rng(c.E * 100 + c.T)

    def numbers(*shape: int) -> F32:
        return rng.standard_normal(shape).astype(np.float32)

    def stack(type: str, rows: int, columns: int, seed: int) -> Stack:
        flat = make_weight(GGMLType[type], c.E * rows, columns, seed, (0.002, -0.003, 0.0005))
        weight = Weight(f"w{seed}", flat.type, (c.E, rows, columns), flat.data)
        if not c.factors:
            return Stack(weight)
        return Stack(weight, numbers(c.E, rows), numbers(c.E))

    up, gate, down = c.types
    experts = Experts(
        up=stack(up, 2 * c.F if c.fused else c.F, c.D, 1),
        down=stack(down, c.D, c.F, 2),
        activation=c.activation,
        gate=stack(gate, c.F, c.D, 3) if c.gated and not c.fused else None,
        fused=c.fused,
        constants=c.constants,
        weigh_input=c.weigh_input,
    )
    x = numbers(c.T, c.D) * np.float32(2)
    if c.T > 3:
        x[2], x[3, ::5] = 0, np.nan
    ids = np.stack([rng.permutation(c.E)[: c.k] for _ in range(c.T)]).astype(np.int32)
    if c.skewed:
        ids[:] = [3, 8, 3, 0, 5, 8, 3, 1]
    weights = numbers(c.T, c.k)
    with np.errstate(all="ignore"):
        want = moe_ffn_q8(x, ids, weights, experts)
    assert np.isnan(want).any(axis=-1).sum() == (c.T > 3)
    return Drawn(x, ids, weights, experts, want)


@pytest.fixture
def one_thread(isa: str) -> Kernels:
    return Kernels(dispatch.table(isa), 1)


@pytest.mark.parametrize("name", CASES)
def test_drawn_shapes(name: str, kernels: Kernels, drawn: Callable[[str], Drawn], same_bits: Same) -> None:
    d = drawn(name)
    assert fast.in_one_call(d.experts, d.ids) == CASES[name].one_call
    with np.errstate(all="ignore"):
        same_bits(d.run(kernels), d.want)
        if CASES[name].one_call:
            same_bits(d.run(kernels), d.want)  # once more, with everything in place


def test_tokens_one_by_one(one_thread: Kernels, drawn: Callable[[str], Drawn], same_bits: Same) -> None:
    d = drawn("K-quants")
    for t in range(d.x.shape[0]):
        one = slice(t, t + 1)
        same_bits(moe_ffn(one_thread, d.x[one], d.ids[one], d.weights[one], d.experts), d.want[one])


def test_arrays_that_are_not_contiguous(one_thread: Kernels, drawn: Callable[[str], Drawn], same_bits: Same) -> None:
    d = drawn("fused")
    x, ids, weights = (np.asfortranarray(a) for a in (d.x, d.ids, d.weights))
    same_bits(moe_ffn(one_thread, x, ids.astype(np.int64), weights, d.experts), d.want)


def test_no_tokens(one_thread: Kernels, drawn: Callable[[str], Drawn]) -> None:
    d = drawn("relu")
    assert moe_ffn(one_thread, d.x[:0], d.ids[:0], d.weights[:0], d.experts).shape == (0, 32)


def test_a_tap_sees_the_steps_of_the_composition(
    one_thread: Kernels, drawn: Callable[[str], Drawn], same_bits: Same
) -> None:
    d, seen = drawn("384 experts, one token"), []

    def tap(name: str, value: NDArray[Any]) -> NDArray[Any]:
        seen.append(name)
        return value

    same_bits(moe_ffn(one_thread, d.x, d.ids, d.weights, d.experts, tap=tap), d.want)
    assert seen == ["ffn_moe_up", "ffn_moe_gate", "ffn_moe_swiglu", "ffn_moe_down", "ffn_moe_weighted"]


def bounded(experts: Experts, cache: UnpackCache) -> Experts:
    def of(stack: Stack) -> Stack:
        return replace(stack, weight=replace(stack.weight, expert_cache=cache, kept={}))

    assert experts.gate is not None
    return replace(experts, up=of(experts.up), gate=of(experts.gate), down=of(experts.down))


def test_room_is_asked_for_as_much_as_is_made(one_thread: Kernels, make_weight: Callable[..., Weight]) -> None:
    """2-bit weights take more room repacked than in the file, and that is what must fit."""
    flat = make_weight(GGMLType.IQ2_XXS, 32, 256, 1)
    for spare, expected in ((-1, False), (0, True)):
        # 16 rows: 64 bytes of levels; of 256 weights 64 of scales, 256 of scales for 16, 1024 + 512 of codes
        cache = UnpackCache(2 * (64 + 64 + 256 + 1536) + spare)
        weight = Weight("w", flat.type, (2, 16, 256), flat.data, expert_cache=cache)
        assert fast.fits([weight], np.array([[0, 1]], np.int32)) == expected
    assert one_thread.packed(weight.expert(1)).nbytes == 64 + 64 + 256 + 1536


@pytest.mark.parametrize("room", [0, 1100, 1 << 20], ids=["no room", "for some", "for all"])
def test_a_bounded_cache(room: int, one_thread: Kernels, drawn: Callable[[str], Drawn], same_bits: Same) -> None:
    """Whether one call may hold its experts or they come one by one: the same bits, and never more than may be kept."""
    d, cache = drawn("384 experts, one token"), UnpackCache(room * 1024)
    experts = bounded(d.experts, cache)
    needed = sum(s.weight.nbytes // 384 * 8 for s in (experts.up, experts.down, experts.up))
    assert fast.in_one_call(experts, d.ids) == (needed <= cache.budget) == (room > 0)
    for _ in range(2):
        for shift in (0, 5, 11):
            ids = (d.ids + shift) % 384
            want = moe_ffn_q8(d.x, ids.astype(np.int32), d.weights, d.experts) if shift else d.want
            same_bits(moe_ffn(one_thread, d.x, ids.astype(np.int32), d.weights, experts), want)
            assert cache.held <= cache.budget


def test_what_does_not_fit_is_refused(one_thread: Kernels, drawn: Callable[[str], Drawn]) -> None:
    d = drawn("relu")
    for wrong in (5, -1, 2**31 - 1):
        ids = d.ids.copy()
        ids[1, 1] = wrong
        with pytest.raises(ModelError, match=f"expert {wrong} is not one of 0..4"):
            moe_ffn(one_thread, d.x, ids, d.weights, d.experts)
    with pytest.raises(ValueError, match="do not fit"):
        moe_ffn(one_thread, d.x[:, :31], d.ids, d.weights, d.experts)
    with pytest.raises(ValueError, match="do not fit"):
        moe_ffn(one_thread, d.x, d.ids, d.weights[:, :1], d.experts)
    with pytest.raises(ValueError, match="do not fit"):
        moe_ffn(one_thread, d.x, d.ids[:1], d.weights, d.experts)
    with pytest.raises(ValueError, match="do not fit"):
        moe_ffn(one_thread, d.x, d.ids, d.weights, replace(d.experts, down=d.experts.up))
    with pytest.raises(ValueError, match="factors for 5 experts"):
        moe_ffn(one_thread, d.x, d.ids, d.weights, replace(d.experts, down=replace(d.experts.down, scale=d.x[0, :4])))
    with pytest.raises(ValueError, match="bias of 5 x 31"):
        short = np.zeros((5, 31), np.float32)
        moe_ffn(one_thread, d.x, d.ids, d.weights, replace(d.experts, down=replace(d.experts.down, bias=short)))
    with pytest.raises(ValueError, match="does not take 1 constants"):
        moe_ffn(one_thread, d.x, d.ids, d.weights, replace(d.experts, activation="situ", constants=(1.0,)))
    with pytest.raises(ValueError, match="swish"):
        moe_ffn(one_thread, d.x, d.ids, d.weights, replace(d.experts, activation="swish"))


def test_stacks_refuse_what_is_not_theirs(one_thread: Kernels, drawn: Callable[[str], Drawn]) -> None:
    native = pytest.importorskip("ref_engine.kernels._native")
    d = drawn("relu")
    packed = one_thread.packed(d.experts.up.weight.expert(0))
    with pytest.raises(ValueError, match="expert 5 of 64 x 32 does not fit 5 of 64 x 32"):
        native.Stack("Q8_0", 5, 64, 32).put(5, packed)
    with pytest.raises(ValueError, match="does not fit 5 of 32 x 64"):
        native.Stack("Q8_0", 5, 32, 64).put(0, packed)
    with pytest.raises(ValueError, match="does not fit"):
        native.Stack("Q4_0", 5, 64, 32).put(0, packed)
    with pytest.raises(ValueError, match="expected 640"):
        native.Stack("F32", 5, 4, 8).lay(np.zeros(639, np.uint8))
    with pytest.raises(ValueError, match="only plain"):
        native.Stack("Q8_0", 5, 64, 32).lay(np.zeros(639, np.uint8))
    with pytest.raises(ValueError, match="whole blocks"):
        native.Stack("Q4_K", 5, 64, 32)
    empty, down = ((native.Stack("Q8_0", 5, *shape), None, None) for shape in ((64, 32), (32, 64)))
    with pytest.raises(ValueError, match="is not here"):
        one_thread.table.moe(d.x, d.ids, d.weights, empty, empty, down, "silu", (), False, False, d.x.copy(), 1)
