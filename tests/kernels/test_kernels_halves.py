"""Half a layer in one call: the bits of the composition that the wiring makes of the NumPy definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ref_engine.backends import numpy_ops
from ref_engine.blocks.layer import attention_in_one, fed, ffn_in_one, mixed
from ref_engine.blocks.site import Pass, Share, Site
from ref_engine.cache import Cache
from ref_engine.compat import native
from ref_engine.files.types import GGMLType
from ref_engine.kernels.halves import Halves
from ref_engine.kernels.ops import Kernels
from ref_engine.ops import Ops
from ref_engine.quant.rows import CACHE_TYPES, CacheType
from ref_engine.reference.rope import rope_table
from ref_engine.spec import AttentionSpec, FfnSpec, LayerSpec, ModelSpec, NormSpec, RopeSpec
from ref_engine.weights import Weight, Weights

F32 = NDArray[np.float32]
Make = Callable[..., Weight]
Same = Callable[[F32, F32], None]
D, H, K, WIDTH = 256, 4, 2, 64
RMS, POST = NormSpec("attn_norm", 1e-5), NormSpec("post_norm", 1e-6)
ROPE = RopeSpec(n_rot=32, base=10000.0, pairing="adjacent")
PLAIN = AttentionSpec(n_head=H, n_head_kv=K, head_dim=WIDTH, scale=0.125, rope=ROPE)
T4, T5, T6, T8 = GGMLType.Q4_1, GGMLType.Q5_0, GGMLType.Q6_K, GGMLType.Q8_0
# what differs from the plain layer, types of queries, keys, values and output, which of them have a bias
ATTENTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[GGMLType, ...], str]] = {
    "plain": ({}, {}, (T4, T4, T4, T4), ""),
    "biases": ({}, {}, (T8, T8, T8, T6), "qkvo"),
    "three roundings": ({}, {}, (T4, T6, GGMLType.F16, GGMLType.BF16), "v"),
    "halves, norms of heads": (
        {"rope": replace(ROPE, n_rot=64, pairing="halves"), "q_norm": NormSpec("attn_q_norm", 1e-6),
         "k_norm": NormSpec("attn_k_norm", 1e-6)}, {"mixer_post_norm": POST}, (T5, T5, T8, GGMLType.Q4_K), "",
    ),
    "window and cap": ({"window": 5, "soft_cap": 2.0, "scale_queries": True}, {"residual_scale": 0.22}, (T4,) * 4, "q"),
    "sinks, no rotation": ({"rope": None, "sinks": "must"}, {"mixer_norm": None}, (GGMLType.F32,) * 4, "o"),
    "levels": ({}, {}, tuple(GGMLType[n] for n in ("IQ4_NL", "MXFP4", "Q3_K", "IQ4_XS")), "qo"),
    "values of another width": ({"v_dim": 32}, {}, (T8,) * 4, ""),
}  # fmt: skip
FFNS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[GGMLType, ...], bool]] = {
    "silu": ({"activation": "silu"}, {}, (T4, T4, T4), False),
    "gelu, post norm": ({"activation": "gelu"}, {"ffn_post_norm": POST}, (T5, T8, T6), True),
    "two roundings": ({"activation": "silu"}, {"residual_scale": 0.5}, (T4, GGMLType.Q5_K, GGMLType.F16), False),
    "a fused matrix": ({"activation": "silu", "fused": True}, {}, (T8, T8, GGMLType.Q4_K), True),
    "levels": ({"activation": "silu"}, {}, (GGMLType.NVFP4, GGMLType.Q2_K, GGMLType.IQ3_XXS), False),
    "no gate": ({"activation": "relu_sqr", "gated": False}, {"ffn_norm": None}, (T8, T8, T4), True),
    "constants": ({"activation": "swiglu_oai", "constants": (1.7, 7.0)}, {}, (T4, T4, T8), True),
}


def weights_of(parts: dict[str, tuple[GGMLType, int, int, bool]], make: Make, vectors: dict[str, int]) -> Weights:
    """name: (type, rows, columns, with a bias), and vectors by their length, under `blk.0.`"""
    rng = np.random.default_rng(5)
    tensors = {}
    for i, (name, (type, rows, columns, biased)) in enumerate(parts.items()):
        tensors[f"blk.0.{name}.weight"] = replace(make(type, rows, columns, i, (0.01, -0.02, 0.005)), name=name)
        if biased:
            vectors = vectors | {f"{name}.bias": rows}
    for name, n in vectors.items():
        data = rng.standard_normal(n).astype(np.float32).view(np.uint8)
        tensors[f"blk.0.{name}"] = Weight(name, GGMLType.F32, (n,), data)
    return Weights(tensors)


def site(
    ops: Ops, weights: Weights, layer: LayerSpec, spec: ModelSpec, sizes: tuple[int, ...], type: CacheType = "f16"
) -> Site:
    """A pass over several sequences, of which the first has a past."""
    shares, row = [], 0
    for i, n in enumerate(sizes):
        cache = Cache(spec, 64, type)
        if i == 0 and layer.mixer is not None:
            past = np.random.default_rng(9).standard_normal((7, K, WIDTH)).astype(np.float32)
            cache.append(0, "k", past)
            cache.append(0, "v", np.ascontiguousarray(past[..., : layer.mixer.value_dim]))  # type: ignore[union-attr]
            cache.advance(range(7))
        shares.append(Share(cache, slice(row, row + n), cache.n_done + np.arange(n)))
        row += n
    positions = np.concatenate([share.positions for share in shares])
    rope = getattr(layer.mixer, "rope", None)
    ropes = {} if rope is None else {rope: rope_table(rope, positions)}
    return Site(
        weights, 0, 0, Pass(ops, tuple(shares), np.zeros(row, np.int64), ropes, lambda _n, _l, x: x, False, False)
    )


def spec_of(layer: LayerSpec) -> ModelSpec:
    return ModelSpec(
        "test", D, n_vocab=8, n_ctx_train=64, n_ctx=64, n_ctx_most=64, layers=(layer,), output_norm=None, tied=True
    )


def in_one(kernels: Kernels) -> Ops:
    halves = Halves(kernels)
    return replace(numpy_ops("q8"), attention_half=halves.attention, ffn_half=halves.ffn)


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("sizes", [(1,), (1, 1, 3), (17, 4)], ids=str)
@pytest.mark.parametrize("type", CACHE_TYPES)
def test_attention(
    name: str, sizes: tuple[int, ...], type: CacheType, kernels: Kernels, make_weight: Make, same_bits: Same
) -> None:
    different, of_layer, types, biased = ATTENTIONS[name]
    a = replace(PLAIN, **different)
    layer = replace(LayerSpec(mixer=a, ffn=None, mixer_norm=RMS), **of_layer)
    shapes = {"attn_q": (H * WIDTH, D), "attn_k": (K * WIDTH, D), "attn_v": (K * a.value_dim, D),
              "attn_output": (D, H * a.value_dim)}  # fmt: skip
    parts = {n: (of, *shape, n[5] in biased) for (n, shape), of in zip(shapes.items(), types, strict=True)}
    vectors = {"attn_norm.weight": D, "post_norm.weight": D, "attn_q_norm.weight": WIDTH, "attn_k_norm.weight": WIDTH}
    weights = weights_of(parts, make_weight, vectors | ({"attn_sinks.weight": H} if a.sinks == "must" else {}))
    x = np.random.default_rng(1).standard_normal((sum(sizes), D)).astype(np.float32)
    spec = spec_of(layer)
    ours, theirs = (
        site(in_one(kernels), weights, layer, spec, sizes, type),
        site(numpy_ops("q8"), weights, layer, spec, sizes, type),
    )
    got = attention_in_one(x, layer, ours)
    assert got is not None
    same_bits(got, mixed(x, a, layer, theirs))
    for mine, other in zip(ours.p.shares, theirs.p.shares, strict=True):
        for memory in ("k", "v"):
            rows = [share.cache.with_room(0, memory, share.positions.size) for share in (mine, other)]
            assert rows[0].tobytes() == rows[1].tobytes()


@pytest.mark.parametrize("name", FFNS)
@pytest.mark.parametrize("n", [1, 3, 150])
def test_ffn(name: str, n: int, kernels: Kernels, make_weight: Make, same_bits: Same) -> None:
    different, of_layer, types, biased = FFNS[name]
    f = replace(FfnSpec(width=512, activation="silu"), **different)
    layer = replace(LayerSpec(mixer=None, ffn=f, ffn_norm=RMS), **of_layer)
    up, gate, down = types
    parts = {"ffn_up": (up, 1024 if f.fused else 512, D, biased), "ffn_down": (down, D, 512, biased)}
    parts |= {"ffn_gate": (gate, 512, D, biased)} if f.gated and not f.fused else {}
    weights = weights_of(parts, make_weight, {"attn_norm.weight": D, "post_norm.weight": D})
    x = np.random.default_rng(2).standard_normal((n, D)).astype(np.float32)
    spec = spec_of(layer)
    got = ffn_in_one(x, layer, site(in_one(kernels), weights, layer, spec, (n,)))
    assert got is not None
    same_bits(got, fed(x, f, layer, site(numpy_ops("q8"), weights, layer, spec, (n,))))


def test_what_a_half_does_not_know_is_composed(isa: str, make_weight: Make) -> None:
    from ref_engine.kernels.dispatch import table

    halves = Halves(Kernels(table(isa), 1))
    parts = {name: (T4, 256, 256, False) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    weights = weights_of(parts, make_weight, {"attn_norm.weight": D, "attn_norm.bias": D})
    a = AttentionSpec(n_head=4, n_head_kv=4, head_dim=64, scale=1.0, rope=None)
    norm = NormSpec("attn_norm", 1e-5, kind="layer", bias="must")
    for mixer, before in ((a, norm), (replace(a, gate="head"), None), (replace(a, alibi=8.0), None)):
        layer = LayerSpec(mixer=mixer, ffn=None, mixer_norm=before)
        assert halves.attention(np.zeros((1, D), np.float32), layer, weights.layer(0), None, []) is None


def test_shapes_are_checked(isa: str, make_weight: Make) -> None:
    """What does not fit is refused before C sees it."""
    table = native.Table(isa)

    def matrix(rows: int, columns: int = D) -> native.Map:
        return native.Map(native.Packed("Q4_1", make_weight(T4, rows, columns, 0).data, rows, columns, 1), None)

    def attention(**other: Any) -> native.AttentionHalf:
        given = {
            "q": matrix(256), "k": matrix(128), "v": matrix(128), "output": matrix(D, 256), "n_head": 4, "n_head_kv": 2,
            "q_norm": None, "k_norm": None, "turned": 8, "adjacent": False, "query_scale": 1.0, "scale": 1.0,
            "window": 0, "cap": 0.0, "inverse_cap": 0.0, "sinks": None, "before": None, "after": None,
            "residual_scale": None,
        }  # fmt: skip
        return native.AttentionHalf(**(given | other))

    for wrong in (
        {"n_head": 3}, {"n_head_kv": 3}, {"n_head": 0}, {"k": matrix(64)}, {"v": matrix(120)},
        {"output": matrix(D, 128)}, {"turned": 33}, {"turned": -1}, {"window": -1}, {"cap": np.inf},
        {"sinks": np.zeros(3, np.float32)}, {"q_norm": (np.zeros(65, np.float32), 0.0)},
        {"before": (np.zeros(3, np.float32), 0.0)},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            attention(**wrong)
    half = attention()
    x, out = np.zeros((2, D), np.float32), np.zeros((2, D), np.float32)
    tables = np.zeros((2, 8), np.float32), np.zeros((2, 8), np.float32)
    keys = np.zeros((2, 2, 128), np.uint8)
    share = (np.arange(2), "f16", keys, keys)
    for given in (
        (x, None, None, [share], out), (x, tables[0], tables[1][:1], [share], out), (x, *tables, [], out),
        (x, *tables, [share, share], out), (x, *tables, [(np.arange(2) - 1, *share[1:])], out),
        (x, *tables, [(*share[:2], keys[:1], keys[:1])], out), (x, *tables, [(*share[:3], keys[:1])], out),
        (x, *tables, [(*share[:2], keys[..., :64].copy(), keys)], out), (x, *tables, [share], x),
        (x, *tables, [(share[0], "q8_0", keys, keys)], out), (x, *tables, [(share[0], "q4_0", keys, keys)], out),
        (x, *tables, [share], out[:1]), (x[:, :128].copy(), *tables, [share], out),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            half.run(table, *given, 1)
    half.run(table, x, *tables, [share], out, 1)
    with pytest.raises(ValueError):
        native.FfnHalf(matrix(256), matrix(128), matrix(D, 256), "silu", (), True, None, None, None)
    with pytest.raises(ValueError):
        native.FfnHalf(matrix(512), matrix(512), matrix(D, 512), "tanh", (), True, None, None, None)
    with pytest.raises(ValueError):
        native.Map(native.Packed("Q4_1", make_weight(T4, 16, D, 0).data, 16, D, 1), np.zeros(15, np.float32))
    with pytest.raises(ValueError):
        native.Map(("F16", np.zeros(10, np.uint8), 2, 3), None)
