"""Attention: keys or values in another slot, another mask, other heads of keys, another scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ref_engine.lens.causes.scene import F64, Cause, Scene, explained
from ref_engine.lens.measure import nmse

_MOST = 1 << 26  # numbers in a score matrix that is computed to test a guess


def scores(s: Scene) -> Cause | None:
    """kq and kq_soft_max: (T, H, S) here, tokens first."""
    if not s.name.startswith(("kq-", "kq_soft_max-")) or s.want.ndim != 3:
        return None
    at = s.positions[:, None, None]
    key = np.arange(s.want.shape[-1])
    if s.name.startswith("kq_soft_max-"):
        seen_a, seen_b = s.want > 0, s.got > 0
        if (seen_b & ~seen_a & (key == at + 1)).any() and not (seen_b & ~seen_a & (key > at + 1)).any():
            return Cause("mask", "in B a token sees the key after its own: the mask is off by one position")
        if (seen_b & ~seen_a & (key > at)).any():
            return Cause("mask", "in B tokens see keys that come later: no causal mask")
        if (~seen_b & seen_a & (key == at)).sum() > s.want.shape[1]:
            return Cause("mask", "in B a token does not see its own key: the mask is off by one position")
        if (seen_b != seen_a).any():
            return Cause("mask", "A and B see different keys: another window or mask")
    return _shifted_keys(s, key <= at)


def _shifted_keys(s: Scene, seen: NDArray[np.bool_]) -> Cause | None:
    for d in (1, -1):
        value = np.roll(s.want, d, axis=-1)
        valid = seen & np.roll(seen, d, axis=-1)
        valid[..., : max(d, 0)] = False
        valid[..., s.want.shape[-1] + min(d, 0) :] = False
        valid = np.broadcast_to(valid, s.want.shape)
        if not valid.any() or not value[valid].any():
            continue
        off = nmse(s.got[valid], s.want[valid])
        if off > 0 and explained(value[valid], s.got[valid], off, s.limit):
            return Cause("kv position", f"B's key s is A's key s{-d:+d}: keys are kept one position off")
    return None


@dataclass(frozen=True)
class Guess:
    kind: str
    text: str
    k: F64
    v: F64
    seen: NDArray[np.bool_]
    scale: float
    by_group: bool = True


def mixed_values(s: Scene) -> Cause | None:
    """kqv_out and kqv, from the queries, keys and values of the same layer, if those are whole and agree."""
    if not s.name.startswith(("kqv_out-", "kqv-")):
        return None
    parts = [s.near(stem) for stem in ("Qcur", "Kcur", "Vcur")]
    q, k, v = ((None if p is None else p.want.astype(np.float64)) for p in parts)
    if q is None or k is None or v is None or any(x.ndim != 3 for x in (q, k, v)):
        return None
    t, h = q.shape[:2]
    if s.pair.positions not in (None, tuple(range(t))) or k.shape[0] != t or h % k.shape[1] or h * t * t > _MOST:
        return None
    want, got = (x.reshape(t, h, -1) for x in (s.want, s.got))
    scale = next((c for c in (q.shape[-1] ** -0.5, 1.0) if _near(attended(q, _plain(k, v, c)), want)), None)
    if scale is None:
        return None
    for guess in _guesses(k, v, scale, h):
        if explained(attended(q, guess), got, s.off, max(s.limit, 1e-7)):
            return Cause(guess.kind, guess.text)
    return None


def _near(value: F64, want: F64) -> bool:
    return value.shape == want.shape and nmse(value, want) < 1e-4


def _causal(t: int, by: int = 0) -> NDArray[np.bool_]:
    at = np.arange(t)
    seen: NDArray[np.bool_] = at <= at[:, None] + by
    return seen


def _plain(k: F64, v: F64, scale: float) -> Guess:
    return Guess("", "", k, v, _causal(k.shape[0]), scale)


def _guesses(k: F64, v: F64, scale: float, h: int) -> Iterator[Guess]:
    t = k.shape[0]
    seen = _causal(t)
    late_k, late_v = _late(k), _late(v)
    yield Guess("kv position", "keys and values are kept one slot late", late_k, late_v, seen, scale)
    yield Guess("kv position", "keys are kept one slot late, values are not", late_k, v, seen, scale)
    yield Guess("kv position", "values are kept one slot late, keys are not", k, late_v, seen, scale)
    yield Guess("kv position", "keys and values are read one slot late", _early(k), _early(v), seen, scale)
    yield Guess(
        "mask", "a token sees the key after its own: the mask is off by one position", k, v, _causal(t, 1), scale
    )
    own = _causal(t, -1)
    own[0, 0] = True
    yield Guess("mask", "a token does not see its own key: the mask is off by one position", k, v, own, scale)
    yield Guess("mask", "tokens see keys that come later: no causal mask", k, v, np.ones((t, t), np.bool_), scale)
    if 1 < k.shape[1] < h:
        text = "query heads take key heads in turn, where A groups neighbours"
        yield Guess("heads", text, k, v, seen, scale, by_group=False)
    for c, name in ((1.0, "no scale"), (1 / k.shape[-1], "1/width"), (k.shape[-1] ** -0.5, "1/sqrt(width)")):
        if c != scale:
            yield Guess("scale", f"scores have {name}, A's have {scale:.4g}", k, v, seen, c)


def _late(x: F64) -> F64:
    return np.concatenate([np.zeros_like(x[:1]), x[:-1]])


def _early(x: F64) -> F64:
    return np.concatenate([x[1:], np.zeros_like(x[:1])])


def attended(q: F64, g: Guess) -> F64:
    """q (T, H, Hd) -> (T, H, Vd), in float64."""
    h, n = q.shape[1], g.k.shape[1]
    of = np.arange(h) // (h // n) if g.by_group else np.arange(h) % n
    kq = np.einsum("thd,shd->hts", q, g.k[:, of]) * g.scale
    kq = np.where(g.seen, kq, -np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        p = np.exp(kq - kq.max(axis=-1, keepdims=True))
    value: F64 = np.einsum("hts,shd->thd", p / p.sum(axis=-1, keepdims=True), g.v[:, of])
    return value
