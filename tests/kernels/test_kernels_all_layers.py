"""All layers in one call: the bits of the layers one by one, as the wiring composes them from the NumPy definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ref_engine.backends import numpy_ops
from ref_engine.blocks.expert_load import ExpertLoad
from ref_engine.blocks.layer import block
from ref_engine.blocks.site import Pass, Share, Site
from ref_engine.cache import Cache
from ref_engine.compat import native
from ref_engine.files.types import GGMLType
from ref_engine.kernels.dispatch import table
from ref_engine.kernels.halves import Halves
from ref_engine.kernels.layers import Layers, all_layers
from ref_engine.kernels.ops import Kernels
from ref_engine.quant.rows import CacheType
from ref_engine.reference.rope import rope_table
from ref_engine.spec import AttentionSpec, FfnSpec, LayerSpec, ModelSpec, MoeSpec, NormSpec, RopeSpec, RoutingSpec
from ref_engine.weights import Weight, Weights

F32 = NDArray[np.float32]
Make = Callable[..., Weight]
D, H, K, WIDTH, F, E = 256, 4, 2, 64, 64, 12
NEAR, FAR = RopeSpec(n_rot=64, base=1e4, pairing="halves"), RopeSpec(n_rot=32, base=1e6, pairing="adjacent")
ATTENTION = AttentionSpec(n_head=H, n_head_kv=K, head_dim=WIDTH, scale=0.125, rope=NEAR)
NORMS = {"mixer_norm": NormSpec("attn_norm", 1e-5), "ffn_norm": NormSpec("ffn_norm", 1e-5)}
DENSE = LayerSpec(mixer=ATTENTION, ffn=FfnSpec(width=512, activation="silu"), **NORMS)
ROUTING = RoutingSpec(gate="softmax", normalise=True)
MOE = MoeSpec(n_expert=E, n_used=3, width=F, activation="silu", routing=ROUTING)
T4, T8 = GGMLType.Q4_1, GGMLType.Q8_0
MIXTURES: dict[str, MoeSpec] = {
    "softmax": MOE,
    "groups, bias and scale": replace(
        MOE,
        routing=replace(ROUTING, gate="sigmoid", groups=4, groups_used=2, bias="exp_probs_b.bias", scale=2.5),
    ),
    "fused, with biases": replace(MOE, fused=True, bias="must", activation="gelu"),
    "weights on what enters": replace(MOE, weigh_input=True, gated=False, activation="relu_sqr"),
}


def weights_of(layers: tuple[LayerSpec, ...], make: Make) -> Weights:
    """Every tensor that the layers ask for: maps in Q4_1 or Q8_0 by turns, routers and vectors in F32."""
    rng, tensors = np.random.default_rng(4), {}
    for i, layer in enumerate(layers):
        for n, (name, rule) in enumerate(layer.rules(D).items()):
            if not rule.required:
                continue
            whole = f"blk.{i}.{name}"
            if len(rule.shape) == 1 or ".bias" in name or "gate_inp" in name:
                numbers = rng.standard_normal(rule.shape).astype(np.float32)
                tensors[whole] = Weight(name, GGMLType.F32, rule.shape, numbers.reshape(-1).view(np.uint8))
            else:
                rows = int(np.prod(rule.shape[:-1]))
                made = make((T4, T8)[n % 2], rows, rule.shape[-1], 7 * i + n, (0.01, -0.02, 0.005))
                tensors[whole] = replace(made, name=name, shape=rule.shape)
    return Weights(tensors)


class Sequences:
    """Some sequences, and the stream that passes through the layers token by token or many at once."""

    def __init__(self, layers: tuple[LayerSpec, ...], weights: Weights, n: int, type: CacheType = "f16") -> None:
        self.layers, self.weights = layers, weights
        spec = ModelSpec(
            "test", D, n_vocab=8, n_ctx_train=600, n_ctx=600, n_ctx_most=600, layers=layers, output_norm=None, tied=True
        )
        self.caches = [Cache(spec, 600, type) for _ in range(n)]
        self.load = ExpertLoad()

    def shares(self, sizes: tuple[int, ...]) -> tuple[Share, ...]:
        ends = np.cumsum(sizes).tolist()
        return tuple(
            Share(cache, slice(end - n, end), cache.n_done + np.arange(n))
            for cache, n, end in zip(self.caches, sizes, ends, strict=True)
        )

    def run(self, x: F32, sizes: tuple[int, ...], compiled: Layers | None, last: bool = False) -> F32:
        shares = self.shares(sizes)
        positions = np.concatenate([share.positions for share in shares])
        turns = {rope: rope_table(rope, positions) for rope in (NEAR, FAR)}
        if compiled is not None:
            found = compiled(x, turns, [(share.cache, share.positions) for share in shares], self.load.of, last)
            assert found is not None
            x = found
        else:
            p = Pass(numpy_ops("q8"), shares, np.zeros(len(x), np.int64), turns, lambda _n, _l, x: x, False, False,
                     expert_load=self.load)  # fmt: skip
            for i, layer in enumerate(self.layers):
                x = block(x, layer, Site(self.weights, i, i, p, x))
            x = x[[share.rows.stop - 1 for share in shares]] if last else x
        for cache, n in zip(self.caches, sizes, strict=True):
            cache.advance([0] * n)
        return x


@dataclass(frozen=True)
class Composed:
    """What the composition gives for some passes, each of so many tokens of each sequence."""

    weights: Weights
    passes: list[tuple[tuple[int, ...], F32, F32]]  # sizes, what enters, what leaves
    left: Sequences


@pytest.fixture(scope="module")
def composed(make_weight: Make) -> Callable[..., Composed]:
    """Computed once for all instruction sets and numbers of threads."""

    known: dict[str, Composed] = {}

    def of(
        layers: tuple[LayerSpec, ...], sizes: tuple[tuple[int, ...], ...], last: bool, type: CacheType = "f16"
    ) -> Composed:
        if (name := f"{type} {layers}") in known:
            return known[name]
        weights, rng = weights_of(layers, make_weight), np.random.default_rng(1)
        sequences = Sequences(layers, weights, len(sizes[0]), type)
        entered = [rng.standard_normal((sum(some), D)).astype(np.float32) for some in sizes]
        left = [sequences.run(x, some, None, last) for x, some in zip(entered, sizes, strict=True)]
        known[name] = Composed(weights, list(zip(sizes, entered, left, strict=True)), sequences)
        return known[name]

    return of


@pytest.mark.parametrize("name", MIXTURES)
def test_bits(name: str, kernels: Kernels, composed: Any, same_bits: Callable[[F32, F32], None]) -> None:
    windowed = replace(DENSE, mixer=replace(ATTENTION, window=5, rope=FAR), residual_scale=0.5)
    unturned = replace(DENSE, mixer=replace(ATTENTION, rope=None), ffn=None)
    layers = (DENSE, replace(DENSE, ffn=MIXTURES[name]), windowed, unturned, replace(windowed, ffn=MIXTURES[name]))
    theirs = composed(layers, ((25, 3), (1, 1), (1, 270), (4, 1)), False)  # the second cache's rows move meanwhile
    compiled = all_layers(Halves(kernels), layers, theirs.weights)
    assert compiled is not None
    ours = Sequences(layers, theirs.weights, 2)
    for sizes, x, y in theirs.passes:
        same_bits(ours.run(x, sizes, compiled), y)
    left_the_same(ours, theirs.left)
    assert ours.load.counts.keys() == {1, 4}


@pytest.mark.parametrize("type", ["f32", "q8_0"])
def test_caches_of_other_types(
    type: CacheType, kernels: Kernels, composed: Any, same_bits: Callable[[F32, F32], None]
) -> None:
    windowed = replace(DENSE, mixer=replace(ATTENTION, window=5, rope=FAR))
    layers = (DENSE, windowed)
    theirs = composed(layers, ((37, 2), (1, 1), (2, 40), (1, 3)), False, type)
    compiled = all_layers(Halves(kernels), layers, theirs.weights)
    assert compiled is not None
    ours = Sequences(layers, theirs.weights, 2, type)
    for sizes, x, y in theirs.passes:
        same_bits(ours.run(x, sizes, compiled), y)
    left_the_same(ours, theirs.left)


def left_the_same(ours: Sequences, theirs: Sequences) -> None:
    """What a pass leaves behind: the caches' rows and the tokens that experts were given."""
    for mine, other in zip(ours.caches, theirs.caches, strict=True):
        for slot, rows in other.all_rows().items():
            got = mine.all_rows()[slot]
            assert got[: mine.n_done].tobytes() == rows[: mine.n_done].tobytes()
    assert ours.load.counts.keys() == theirs.load.counts.keys()
    for layer, counts in theirs.load.counts.items():
        np.testing.assert_array_equal(ours.load.counts[layer], counts)


MIXED = replace(DENSE, ffn=MOE)
SCALED = replace(DENSE, mixer=replace(ATTENTION, window=5, rope=FAR), residual_scale=0.5)
ENDS: dict[str, tuple[tuple[LayerSpec, ...], bool]] = {
    "attention and FFN": ((DENSE, MIXED, DENSE), True),
    "window and scale": ((MIXED, SCALED), True),
    "no FFN": ((DENSE, replace(DENSE, ffn=None)), True),
    "FFNs alone": ((DENSE, replace(DENSE, mixer=None), replace(SCALED, mixer=None)), True),
    "a mixture, which counts all tokens": ((DENSE, MIXED), False),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_last_tokens_alone(
    name: str, kernels: Kernels, composed: Any, same_bits: Callable[[F32, F32], None]
) -> None:
    layers, narrows = ENDS[name]
    theirs = composed(layers, ((25, 3, 1), (1, 1, 1), (2, 1, 40), (1, 7, 1)), True)
    compiled = all_layers(Halves(kernels), layers, theirs.weights)
    assert compiled is not None and compiled.compiled.narrows == narrows
    ours = Sequences(layers, theirs.weights, 3)
    for sizes, x, y in theirs.passes:
        same_bits(ours.run(x, sizes, compiled, last=True), y)
    left_the_same(ours, theirs.left)


UNKNOWN: dict[str, dict[str, Any]] = {
    "parallel": {"parallel": True},
    "recalled": {"recall": -1},
    "kept for later": {"kept": True},
    "normed stream": {"normed_residual": 1.0},
    "attention with a gate": {"mixer": replace(ATTENTION, gate="sigmoid")},
    "a shared expert": {"ffn": replace(MOE, shared=FfnSpec(width=F, activation="silu"))},
    "a router of the layer's input": {"ffn": replace(MOE, reads="layer")},
    "a gate without a kernel": {"ffn": replace(MOE, routing=replace(ROUTING, gate="sqrt_softplus"))},
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_layers_that_it_does_not_know(name: str, isa: str, make_weight: Make) -> None:
    layers = (DENSE, replace(DENSE, **UNKNOWN[name]))
    assert all_layers(Halves(Kernels(table(isa), 1)), layers, weights_of(layers, make_weight)) is None


def test_caches_of_two_types_in_one_pass(
    kernels: Kernels, make_weight: Make, same_bits: Callable[[F32, F32], None]
) -> None:
    weights = weights_of((DENSE,), make_weight)
    compiled = all_layers(Halves(kernels), (DENSE,), weights)
    assert compiled is not None
    alone = [Sequences((DENSE,), weights, 1, type) for type in ("f16", "q8_0")]
    together = [Sequences((DENSE,), weights, 1, type) for type in ("f16", "q8_0")]
    x, positions = np.random.default_rng(3).standard_normal((8, D)).astype(np.float32), np.arange(4)
    want = np.concatenate([one.run(part, (4,), compiled) for one, part in zip(alone, (x[:4], x[4:]), strict=True)])
    turns = {NEAR: rope_table(NEAR, np.tile(positions, 2))}
    got = compiled(x, turns, [(one.caches[0], positions) for one in together], ExpertLoad().of, False)
    assert got is not None
    same_bits(got, want)


def test_what_does_not_fit_is_refused(isa: str, make_weight: Make) -> None:
    layers = (replace(DENSE, ffn=MOE),)
    weights = weights_of(layers, make_weight)
    compiled = all_layers(Halves(Kernels(table(isa), 1)), layers, weights)
    assert compiled is not None
    run, kernels = compiled.compiled.run, compiled.kernels.table
    x, out = np.zeros((2, D), np.float32), np.zeros((2, D), np.float32)
    turns, counts = [rope_table(NEAR, np.arange(2))], [np.zeros(E, np.int64)]
    rows = np.zeros((4, K, WIDTH * 2), np.uint8)
    places, at = native.Places(compiled.compiled, "f16", [(rows, rows.copy())]), np.arange(2)

    def refused(match: str, *, places: Any = places, x: F32 = x, turns: Any = turns, counts: Any = counts,
                at: Any = at, fetch: Any = compiled.fetch, out: F32 = out) -> None:  # fmt: skip
        with pytest.raises(ValueError, match=match):
            run(kernels, x, turns, [(places, at)], counts, fetch, out, 1)

    refused("stream of 2 x 128", x=np.zeros((2, 128), np.float32))
    refused("do not write over", out=x)
    refused("into 1 x 256", out=out[:1])  # a mixture ends it: no token is left out
    refused("tables of sines", turns=[rope_table(NEAR, np.arange(3))])
    refused("16 pairs", turns=[rope_table(FAR, np.arange(2))])
    refused("0 tables of sines", turns=[])
    refused("11 counts", counts=[np.zeros(E - 1, np.int64)])
    refused("position 5 in a cache of 4", at=np.arange(4, 6))
    refused("position 3 after 1", at=np.array([1, 3]))
    refused("0 tokens|1 tokens", at=np.array([-1]))
    refused("sequences of 1 tokens for a stream of 2", at=np.arange(1))
    refused("expert .* of mixture 0 is not here", fetch=lambda mixture, e: None)
    with pytest.raises(ValueError, match="keys of 2 x 64 bytes"):
        native.Places(compiled.compiled, "f16", [(rows[..., :WIDTH].copy(), rows)])
    with pytest.raises(ValueError, match="keys of 2 x 128 bytes"):
        native.Places(compiled.compiled, "q8_0", [(rows, rows)])
    with pytest.raises(ValueError, match="3 values"):
        native.Places(compiled.compiled, "f16", [(rows, rows[:3].copy())])
    run(kernels, x, turns, [(places, at)], counts, compiled.fetch, out, 1)  # and goes on working
    assert counts[0].sum() == 2 * MOE.n_used
