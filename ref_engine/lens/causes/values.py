"""Mistakes that show in the numbers themselves: nothing there, a factor, an offset, a sign, a narrower type."""

from __future__ import annotations

import math

import numpy as np

from ref_engine.lens.causes.scene import F64, Cause, Scene

_ROWS = 4  # so many tokens, at least, for a factor of each unit to mean anything
_FEW = 1 / 16  # of the units, or of the tokens
_MOST_OF_IT = 0.99


def not_finite(s: Scene) -> Cause | None:
    bad = ~np.isfinite(s.got) & np.isfinite(s.want)
    if not bad.any():
        return None
    kind = "NaN" if np.isnan(s.got[bad]).any() else "infinity"
    tokens = np.flatnonzero(bad.reshape(bad.shape[0], -1).any(axis=1))
    first = int(s.positions[tokens[0]])
    return Cause("nan", f"B has {int(bad.sum())} times {kind} where A has numbers, from token {first} on")


def nothing_there(s: Scene) -> Cause | None:
    if not s.got.any() and s.want.any():
        return Cause("zero", "B is zero everywhere: never written, or read before it was")
    return None


def factor(s: Scene) -> Cause | None:
    """One number for all: a scale that is missing or doubled, or a sign."""
    c = _ratio(s.want, s.got)
    if c == 0 or not s.explains(c * s.want):
        return None
    if abs(c + 1) < 1e-3:
        return Cause("sign", "B has the opposite sign")
    return Cause("scale", f"B is A times {c:.6g}{_known(c, s)}")


def _ratio(want: F64, got: F64) -> float:
    """The factor c that makes c * want nearest to got."""
    size = float((want * want).sum())
    return float((want * got).sum()) / size if size else 0.0


def _known(c: float, s: Scene) -> str:
    """Where a factor is one that models are full of, its name."""
    width = s.want.shape[-1]
    all_units = math.prod(s.want.shape[1:])
    names = {
        f"1/sqrt({width})": width**-0.5,
        f"sqrt({width})": width**0.5,
        f"1/sqrt({all_units})": all_units**-0.5,
        f"sqrt({all_units})": all_units**0.5,
        "1/sqrt(2)": 2**-0.5,
        "sqrt(2)": 2**0.5,
    }
    return next((f", which is {name}" for name, value in names.items() if abs(c / value - 1) < 1e-3), "")


def factor_for_each(s: Scene) -> Cause | None:
    """A factor for each unit (a norm's weight), for each head, or for each token (a normalisation)."""
    t = s.want.shape[0]
    want, got = s.want.reshape(t, -1), s.got.reshape(t, -1)
    heads = s.want.ndim == 3 and s.pair.axis == 0 and s.want.shape[1] > 1 and t * s.want.shape[2] >= 8
    if heads and s.explains(s.want * _ratios(s.want, s.got, (0, 2))):
        return Cause("head scale", "B is A with a factor for each head")
    if t >= _ROWS and s.explains((want * _ratios(want, got, 0)).reshape(s.got.shape)):
        return Cause("unit scale", "B is A with a factor for each unit: a norm's weight that is missing or another one")
    if t > 1 and want.shape[1] >= 8 and s.explains((want * _ratios(want, got, 1)).reshape(s.got.shape)):
        return Cause(
            "token scale", "B is A with a factor for each token: a normalisation that is missing or another one"
        )
    return None


def _ratios(want: F64, got: F64, axis: int | tuple[int, ...]) -> F64:
    size = (want * want).sum(axis=axis, keepdims=True)
    found: F64 = (want * got).sum(axis=axis, keepdims=True) / np.where(size, size, 1)
    return found


def offset(s: Scene) -> Cause | None:
    """B - A is one number, or one for each unit: a bias."""
    difference = s.got - s.want
    whole = float(difference.mean())
    if s.want.size > _ROWS and s.explains(s.want + whole):
        return Cause("offset", f"B is A plus {whole:.6g} everywhere")
    if s.want.shape[0] >= _ROWS and s.explains(s.want + difference.mean(axis=0)):
        size = float(np.abs(difference.mean(axis=0)).max())
        return Cause(
            "bias", f"B is A plus the same row for every token (largest {size:.3g}): a bias missing or doubled"
        )
    return None


def narrower(s: Scene) -> Cause | None:
    """B is A in half precision."""
    with np.errstate(over="ignore"):
        half = s.want.astype(np.float16).astype(np.float64)
        bits = s.want.astype(np.float32).view(np.uint32)
    brain = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)
    for name, value in (("float16", half), ("bfloat16", brain)):
        if (np.abs(s.got - value) <= 1e-6 * np.abs(s.want)).mean() > 0.98:
            return Cause("precision", f"B is A rounded to {name}")
    return None


def confined(s: Scene) -> Cause | None:
    """All of the error in a few units, or in a few tokens."""
    t = s.want.shape[0]
    want, got = s.want.reshape(t, -1), s.got.reshape(t, -1)
    size = np.sqrt((want**2).mean(axis=1, keepdims=True))
    error = ((got - want) / np.where(size > 0, size, 1)) ** 2
    units, tokens = _few(error.sum(axis=0)), _few(error.sum(axis=1))
    if units is not None and t > 1 and not s.pair.is_ids:
        rows = _listed(units)
        return Cause(
            "few units",
            f"the error is confined to units {rows} of {want.shape[1]}: those rows of the weight that makes it, "
            "such as a wrong block or scale",
        )
    if tokens is not None and want.shape[1] > 1:
        at = [int(s.positions[i]) for i in tokens]
        return Cause("few tokens", f"the error is confined to tokens {_listed(at)} of {t}")
    return None


def _few(energy: F64) -> list[int] | None:
    """The few indices that hold nearly all of it; None if they are many."""
    order = np.argsort(-energy)
    total = float(energy.sum())
    if total <= 0 or energy.size < 2:
        return None
    n = int(np.searchsorted(np.cumsum(energy[order]) / total, _MOST_OF_IT)) + 1
    return sorted(int(i) for i in order[:n]) if n <= max(1, energy.size * _FEW) else None


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
