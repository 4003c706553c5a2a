"""Attention against a loop over heads, tokens and keys in float64; rotation against ggml and complex arithmetic."""

from pathlib import Path

import numpy as np
import pytest

from ref_engine.reference.attention import attend_blas, attend_ordered
from ref_engine.reference.rope import rope, rope_table
from ref_engine.spec import RopeSpec


def looped(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    positions: np.ndarray,
    scale: float,
    window: int | None,
    cap: float | None,
) -> np.ndarray:
    tokens, heads, width = q.shape
    out = np.zeros((tokens, heads, width))
    for t in range(tokens):
        for h in range(heads):
            keys = [s for s in range(len(k)) if s <= positions[t] and (window is None or positions[t] - s < window)]
            kv = h // (heads // k.shape[1])
            kq = np.array([np.dot(q[t, h].astype(np.float64), k[s, kv].astype(np.float64)) for s in keys])
            kq = kq if cap is None else cap * np.tanh(kq / cap)
            p = np.exp(kq * scale - (kq * scale).max())
            out[t, h] = sum(p[i] / p.sum() * v[s, kv].astype(np.float64) for i, s in enumerate(keys))
    return out.reshape(tokens, -1)


@pytest.mark.parametrize("attend", [attend_blas, attend_ordered])
@pytest.mark.parametrize(("heads", "kv"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("cap", [None, 3.0])
def test_against_a_loop(attend: object, heads: int, kv: int, window: int | None, cap: float | None) -> None:
    rng = np.random.default_rng(heads)
    k, v = (rng.standard_normal((23, kv, 20)).astype(np.float32) for _ in range(2))
    q = rng.standard_normal((9, heads, 20)).astype(np.float32)
    positions = np.arange(14, 23)
    got = attend(q, k, v, positions, scale=0.7, window=window, cap=cap, tap=None)  # type: ignore[operator]
    np.testing.assert_allclose(got, looped(q, k, v, positions, 0.7, window, cap), rtol=2e-5, atol=2e-6)


def test_later_keys_and_other_tokens_change_no_bit() -> None:
    rng = np.random.default_rng(2)
    k, v = (rng.standard_normal((50, 2, 32)).astype(np.float32) for _ in range(2))
    q = rng.standard_normal((50, 4, 32)).astype(np.float32)
    rest = {"scale": 0.2, "window": 20, "cap": None, "tap": None}
    whole = attend_ordered(q, k, v, np.arange(50), **rest)
    one = [attend_ordered(q[t : t + 1], k[: t + 1], v[: t + 1], np.array([t]), **rest) for t in range(50)]
    assert (np.concatenate(one) == whole).all()


def test_queries_and_weights_are_rounded_to_float16_beside_a_float16_cache() -> None:
    """By hand: 1 + 2**-12 is 1 in float16, 1/3 is 1365 * 2**-12; not beside a float32 cache nor in f32 mode."""
    q = np.full((1, 1, 1), 1 + 2.0**-12, np.float32)
    k = np.ones((3, 1, 1), np.float32)
    v = np.array([3, 0, 0], np.float32)[:, None, None]
    for attend, kind, score, out in (
        (attend_ordered, np.float16, 1.0, 4095 * 2.0**-12),
        (attend_ordered, np.float32, 1 + 2.0**-12, 1.0),
        (attend_blas, np.float16, 1 + 2.0**-12, 1.0),
    ):
        seen: dict[str, np.ndarray] = {}
        args = (q, k.astype(kind), v.astype(kind), np.array([2]))
        got = attend(*args, scale=1.0, tap=seen.setdefault)
        assert (seen["kq"] == np.float32(score)).all()
        assert (seen["kq_soft_max"] == np.float32(1 / 3)).all(), "the weights themselves are float32, as llama.cpp's"
        assert got.item() == np.float32(out)


@pytest.mark.parametrize("pairing", ["adjacent", "halves"])
def test_rope_is_a_complex_rotation(pairing: str) -> None:
    spec = RopeSpec(n_rot=6, base=100.0, pairing=pairing)  # type: ignore[arg-type]
    x = np.random.default_rng(1).standard_normal((4, 2, 8)).astype(np.float32)
    positions = np.array([0, 1, 7, 100_000])
    got = rope(x, *rope_table(spec, positions), spec.pairing)
    a, b = (x[..., 0:6:2], x[..., 1:6:2]) if pairing == "adjacent" else (x[..., :3], x[..., 3:6])
    turned = (a + 1j * b) * np.exp(1j * positions[:, None] * 100.0 ** (-np.arange(3) / 3))[:, None, :]
    c, d = (got[..., 0:6:2], got[..., 1:6:2]) if pairing == "adjacent" else (got[..., :3], got[..., 3:6])
    np.testing.assert_allclose(c, turned.real, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(d, turned.imag, rtol=1e-5, atol=1e-6)
    assert (got[..., 6:] == x[..., 6:]).all()


YARN = 1 + 0.1 * np.log(4)  # ggml multiplies the magnitude by 1 + 0.1 ln(1 / freq_scale); a RopeSpec says it
GGML_ROPES = {
    "norm": {},
    "neox": {},
    "norm_partial": {"n_rot": 40},
    "neox_partial": {"n_rot": 40},
    "norm_linear": {"freq_scale": 0.25},
    "neox_base": {"base": 1e6},
    "norm_factors": {"base": 5e5},
    "neox_factors": {"magnitude": 1.19},
    "norm_yarn": {"freq_scale": 0.25, "ext_factor": 1.0, "n_ctx_orig": 2048, "magnitude": YARN},
    "neox_yarn": {"freq_scale": 0.125, "ext_factor": 1.0, "n_ctx_orig": 4096, "magnitude": 0.8 * (1 + 0.1 * np.log(8))},
    "norm_yarn_betas": {
        "freq_scale": 0.25,
        "ext_factor": 0.5,
        "n_ctx_orig": 2048,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "magnitude": YARN,
    },
}


@pytest.mark.parametrize("case", GGML_ROPES)
def test_rope_against_ggml(case: str, golden: Path) -> None:
    data = np.load(golden / "ops" / "graph.npz")
    x, want = data[f"rope_{case}/a"], data[f"rope_{case}/out"].astype(np.float64)
    positions = data[f"rope_{case}/positions"].astype(np.int64)
    factors = data.get(f"rope_{case}/factors")
    pairing = "halves" if case.startswith("neox") else "adjacent"
    spec = RopeSpec(**({"n_rot": 64, "base": 10000.0, "pairing": pairing} | GGML_ROPES[case]))  # type: ignore[arg-type]
    got = rope(x, *rope_table(spec, positions, factors), spec.pairing)
    off = ((got - want) ** 2).sum((1, 2)) / (want**2).sum((1, 2))
    # ggml multiplies its angles up in float32, so its error grows with the square of the position
    assert (off < 1e-12 + 1e-13 * positions.astype(np.float64) ** 2).all()
    assert off[positions < 100].max() < 1e-9
