"""Latent attention against the papers' formulas in float64: absorbed and not, with windows, gates and indexers."""

from dataclasses import replace

import numpy as np
import pytest

from ref_engine.backends import numpy_ops
from ref_engine.blocks.latent import latent_attention
from ref_engine.blocks.site import Pass, Share, Site
from ref_engine.cache import Cache
from ref_engine.files.types import GGMLType
from ref_engine.reference.rope import rope_table
from ref_engine.spec import IndexerSpec, LatentAttentionSpec, LayerSpec, ModelSpec, NormSpec, RopeSpec
from ref_engine.weights import Weight, Weights

T, D, H, NOPE, ROPE, V, RANK, Q_RANK = 12, 10, 3, 5, 4, 6, 7, 8
EPS = 1e-5
SPEC = LatentAttentionSpec(
    n_head=H,
    nope_dim=NOPE,
    rope_dim=ROPE,
    v_dim=V,
    kv_rank=RANK,
    scale=0.3,
    rope=RopeSpec(ROPE, 100.0, "adjacent"),
    kv_norm=NormSpec("attn_kv_a_norm", EPS),
    q_rank=Q_RANK,
    q_norm=NormSpec("attn_q_a_norm", EPS),
)
INDEXER = IndexerSpec(3, 8, 4, "adjacent", NormSpec("indexer.k_norm", EPS, "layer", bias="must"))


def draw(spec: LatentAttentionSpec) -> dict[str, np.ndarray]:
    """Weights for every tensor that the spec asks for, those of W_kvb in the form that it asks for."""
    rng = np.random.default_rng(1)
    rules = replace(spec, absorbed=False).rules(D)
    w = {name: rng.standard_normal(rule.shape) / np.sqrt(rule.shape[-1]) for name, rule in rules.items()}
    if spec.absorbed:
        both = w.pop("attn_kv_b.weight").reshape(H, NOPE + V, RANK)
        w["attn_k_b.weight"] = both[:, :NOPE].transpose(0, 2, 1)
        w["attn_v_b.weight"] = both[:, NOPE:]
    return {name: np.ascontiguousarray(x, np.float32) for name, x in w.items()}


def model(spec: LatentAttentionSpec) -> ModelSpec:
    layer = LayerSpec(spec, None)
    return ModelSpec("small", D, 1, 64, 64, 64, (layer,), None, tied=True)


def run(x: np.ndarray, spec: LatentAttentionSpec, w: dict[str, np.ndarray], chunks: list[int]) -> np.ndarray:
    """The part over the rows of x, in passes of so many tokens, in q8 mode (with F32 weights: products in order)."""
    weights = {f"blk.0.{n}": Weight(n, GGMLType.F32, a.shape, a.reshape(-1).view(np.uint8)) for n, a in w.items()}
    cache, out = Cache(model(spec), 64, "f32"), []
    for n in chunks:
        positions = cache.n_done + np.arange(n)
        ropes = {} if spec.rope is None else {spec.rope: rope_table(spec.rope, positions)}
        share = Share(cache, slice(0, n), positions)
        p = Pass(numpy_ops("q8"), (share,), positions, ropes, lambda name, layer, value: value, tracing=False)
        out.append(latent_attention(x[positions], spec, Site(Weights(weights), 0, 0, p)))
        cache.advance([0] * n)
    return np.concatenate(out)


def rms(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def turned(x: np.ndarray) -> np.ndarray:
    """(T, ..., ROPE): pairs of neighbours as complex numbers."""
    angle = np.arange(T)[:, None] * 100.0 ** (-np.arange(ROPE // 2) / (ROPE // 2))
    z = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angle).reshape(T, *[1] * (x.ndim - 2), -1)
    return np.stack([z.real, z.imag], -1).reshape(x.shape)


def chosen(x: np.ndarray, low: np.ndarray, w: dict[str, np.ndarray], top_k: int) -> np.ndarray:
    """DeepSeek-V3.2's formula (1), without the rotation by a Hadamard matrix: (T, T) bool."""
    q = (low @ w["indexer.attn_q_b.weight"].T).reshape(T, 3, 8)
    k = x @ w["indexer.attn_k.weight"].T
    k = (k - k.mean(-1, keepdims=True)) / np.sqrt(k.var(-1, keepdims=True) + EPS)
    k = k * w["indexer.k_norm.weight"] + w["indexer.k_norm.bias"]
    q, k = (np.concatenate([turned(y[..., :ROPE]), y[..., ROPE:]], -1) for y in (q, k))
    weights = x @ w["indexer.proj.weight"].T
    scores = np.einsum("th,ths->ts", weights, np.maximum(np.einsum("thd,sd->ths", q, k), 0))
    seen = np.zeros((T, T), bool)
    for t in range(T):
        best = sorted(range(t + 1), key=lambda s: -scores[t, s])[:top_k]
        seen[t, best] = True
    return seen


def expected(x: np.ndarray, spec: LatentAttentionSpec, w32: dict[str, np.ndarray]) -> np.ndarray:
    """DeepSeek-V2's formulas with the keys and values of each head, in float64."""
    w = {name: a.astype(np.float64) for name, a in w32.items()}
    low = rms(x @ w["attn_q_a.weight"].T, w["attn_q_a_norm.weight"])
    q = (low @ w["attn_q_b.weight"].T).reshape(T, H, NOPE + ROPE)
    packed = x @ w["attn_kv_a_mqa.weight"].T
    c, k_rope = rms(packed[:, :RANK], w["attn_kv_a_norm.weight"]), packed[:, RANK:]
    if spec.k_norm is not None:
        k_rope = rms(k_rope, w["attn_k_norm.weight"])
    q_rope = q[..., NOPE:]
    if spec.rope is not None:
        q_rope, k_rope = turned(q_rope), turned(k_rope)
    kv = (c @ w["attn_kv_b.weight"].T).reshape(T, H, NOPE + V)
    scores = np.einsum("thd,shd->hts", q[..., :NOPE], kv[..., :NOPE]) + np.einsum("thd,sd->hts", q_rope, k_rope)
    t, s = np.arange(T)[:, None], np.arange(T)
    seen = (s <= t) & (s > t - (spec.window or T))
    if spec.indexer is not None:
        seen &= chosen(x, low, w, spec.indexer.top_k)
    p = np.exp(np.where(seen, scores * spec.scale, -np.inf))
    y = np.einsum("hts,shd->thd", p / p.sum(-1, keepdims=True), kv[..., NOPE:])
    if spec.gated:
        y = y / (1 + np.exp(-(x @ w["attn_gate.weight"].T)))[..., None]
    return y.reshape(T, -1) @ w["attn_output.weight"].T


VARIANTS = {
    "plain": {},
    "window": {"window": 3},
    "no rotation": {"rope": None},
    "gated": {"gated": True},
    "norm of the common key": {"k_norm": NormSpec("attn_k_norm", EPS)},
    "indexer": {"indexer": INDEXER},
    "indexer with all": {"indexer": replace(INDEXER, top_k=T)},
}


@pytest.mark.parametrize("absorbed", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_against_the_formulas(variant: str, absorbed: bool) -> None:
    unpacked = replace(SPEC, absorbed=False, **VARIANTS[variant])  # type: ignore[arg-type]
    spec = replace(unpacked, absorbed=absorbed)
    x = np.random.default_rng(2).standard_normal((T, D)).astype(np.float32)
    got = run(x, spec, draw(spec), [T])
    np.testing.assert_allclose(got, expected(x.astype(np.float64), spec, draw(unpacked)), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_split_gives_the_same_bits(variant: str) -> None:
    spec = replace(SPEC, **VARIANTS[variant])  # type: ignore[arg-type]
    x, w = np.random.default_rng(3).standard_normal((T, D)).astype(np.float32), draw(spec)
    whole = run(x, spec, w, [T])
    for chunks in ([1] * T, [7, 5], [2, 1, 9]):
        assert (run(x, spec, w, chunks) == whole).all()


def test_a_layer_may_follow_the_choice_of_one_before_it() -> None:
    """With the weights and the input of that layer it gives the same bits; without its choice it does not."""
    first = replace(SPEC, indexer=INDEXER)
    follower = replace(SPEC, follows=True)
    arrays = draw(first)
    x = np.random.default_rng(4).standard_normal((T, D)).astype(np.float32)
    weights = {f"blk.0.{n}": Weight(n, GGMLType.F32, a.shape, a.reshape(-1).view(np.uint8)) for n, a in arrays.items()}
    layers = tuple(LayerSpec(part, None) for part in (first, follower, SPEC))
    cache, positions = Cache(replace(model(first), layers=layers), 64, "f32"), np.arange(T)
    assert first.rope is not None
    ropes = {first.rope: rope_table(first.rope, positions)}
    share = Share(cache, slice(0, T), positions)
    p = Pass(numpy_ops("q8"), (share,), positions, ropes, lambda name, layer, value: value, tracing=False)
    a, b, free = (
        latent_attention(x, part, Site(Weights(weights), 0, i, p)) for i, part in enumerate((first, follower, SPEC))
    )
    assert (a == b).all()
    assert not np.allclose(a[INDEXER.top_k :], free[INDEXER.top_k :])
