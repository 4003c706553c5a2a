"""One name in two dumps: both values, laid out alike, and how far apart they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError
from ref_engine.lens.dump import Dump, Facts, Tensor
from ref_engine.lens.layout import arrangements, halves_as_pairs, pairs_as_halves, rows_of, squeezed, with_keys
from ref_engine.lens.measure import nmse, row_nmse
from ref_engine.tracing import by_key, missing_key, token_axis

Array = NDArray[Any]
IDS = ("ffn_moe_topk", "ffn_moe_argsort", "ffn_moe_group_topk", "top_k", "ffn_adj_moe_topk")
_TURNED = ("Qcur", "Kcur")
_NEVER = "the shapes {} and {} are no two layouts of one value"


@dataclass(frozen=True)
class Totals:
    """Sums over all of a tensor, of which only the corners are known of one side."""

    want: float
    got: float
    rounding: float  # by how much two float32 sums of the same numbers may differ
    reach: float  # the sum's error is at most this times the root of the NMSE

    @property
    def error(self) -> float:
        """The least NMSE that explains the sums."""
        off = abs(self.got - self.want) - self.rounding
        if not np.isfinite(off):
            return 0.0 if (np.isnan(self.got) and np.isnan(self.want)) or self.got == self.want else float("inf")
        return (off / self.reach) ** 2 if off > 0 and self.reach > 0 else 0.0


@dataclass(frozen=True)
class Pair:
    """Both values of a name in one shape, tokens on `axis`: `want` is A's, `got` is B's."""

    name: str
    want: Array
    got: Array
    axis: int
    positions: tuple[int, ...] | None  # of the rows
    layout: str = ""
    printed: float | None = None  # what the digits of a text leave open
    power: float = 0.0  # mean square of all of A's value, where only corners are compared
    totals: Totals | None = None

    @property
    def is_ids(self) -> bool:
        return self.name.startswith(IDS)


class Mismatch(RefEngineError):
    """Two values of one name that cannot be laid out alike."""


def pair(name: str, a: Dump, b: Dump) -> Pair:
    """Load both values of `name`. Raises Mismatch where no layout makes them comparable."""
    first, second = a.tensors[name], b.tensors[name]
    if first.load is None and second.load is None:
        return _both_printed(name, first, second)
    if first.load is None:
        return flipped(_printed(name, second, first, b.facts, a.facts))
    if second.load is None:
        return _printed(name, first, second, a.facts, b.facts)
    return _whole(name, first, second, a.facts, b.facts)


def straightened(a: Dump, b: Dump) -> Dump:
    """B with all its axes reversed, if every shape that can tell says that it counts them as ggml does."""
    telling = [(a.tensors[n].shape, t.shape) for n, t in b.tensors.items() if n in a.tensors and t.printed is None]
    telling = [(x, y) for x, y in telling if squeezed(x) != squeezed(y)]
    if not telling or any(squeezed(x) != squeezed(y)[::-1] for x, y in telling):
        return b

    def straight(tensor: Tensor) -> Tensor:
        load = tensor.load
        return tensor if load is None else replace(tensor, shape=tensor.shape[::-1], load=lambda: load().T)

    tensors = {name: straight(tensor) for name, tensor in b.tensors.items()}
    return replace(b, source=f"{b.source}, axes reversed", tensors=tensors)


def flipped(p: Pair) -> Pair:
    totals = None if p.totals is None else replace(p.totals, want=p.totals.got, got=p.totals.want)
    return replace(p, want=p.got, got=p.want, totals=totals)


def _whole(name: str, a: Tensor, b: Tensor, fa: Facts, fb: Facts) -> Pair:
    want, got = _load(a), _load(b)
    axis = min(token_axis(name), want.ndim - 1) if want.ndim else 0
    if want.ndim == 0 or got.ndim == 0:
        want, got = want.reshape(-1), got.reshape(-1)
    if by_key(name) and want.ndim >= 2:
        want, got = _same_keys(name, want, got)
    n_want = want.shape[axis]
    n_got = n_want if want.size == got.size else rows_of(got.shape, want.shape, axis)
    if n_got is None or not n_got:
        raise Mismatch(f"{name}: " + _NEVER.format(a.shape, b.shape))
    goal = (*want.shape[:axis], n_got, *want.shape[axis + 1 :])
    here, there, positions = _common_rows(n_want, n_got, fa, fb)
    want = want.take(here, axis=axis)
    best: Pair | None = None
    for laid, words in _laid_out(name, got, goal, fa, fb):
        found = Pair(name, want, laid.take(there, axis=axis), axis, positions, words)
        best = found if best is None or _error(found) < _error(best) else best
    if best is None:
        raise Mismatch(f"{name}: " + _NEVER.format(a.shape, b.shape))
    return _used(best)


def _used(p: Pair) -> Pair:
    """Without scores of keys that come after their token: they are computed or not, and never used."""
    if not p.name.startswith("kq-") or p.want.ndim != 3:
        return p
    at = np.array(p.positions if p.positions is not None else range(p.want.shape[1]))
    seen = np.arange(p.want.shape[-1]) <= at[:, None]
    return replace(p, want=np.where(seen, p.want, 0), got=np.where(seen, p.got, 0))


def _laid_out(name: str, got: Array, goal: tuple[int, ...], fa: Facts, fb: Facts) -> Iterator[tuple[Array, str]]:
    """B's value in A's layout, in every way that the shapes allow."""
    for way in arrangements(got.shape, goal):
        laid = way.apply(got)
        yield laid, way.words
        one_has_halves = (fa.engine == "transformers") != (fb.engine == "transformers")
        if name.startswith(_TURNED) and one_has_halves and laid.ndim == 3 and laid.shape[-1] % 2 == 0:
            turn = halves_as_pairs if fb.engine == "transformers" else pairs_as_halves
            words = "features of each head in halves in one, in pairs in the other"
            yield turn(laid), f"{way.words}; {words}" if way.words else words


def _common_rows(
    n_want: int, n_got: int, fa: Facts, fb: Facts
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, ...] | None]:
    """The rows of A and of B that are about the same tokens. Without positions, the shorter has the last ones."""
    at = _positions(n_want, fa)
    bt = _positions(n_got, fb)
    if at is None or bt is None:
        n = min(n_want, n_got)
        return np.arange(n_want - n, n_want), np.arange(n_got - n, n_got), None
    if fb.positions is None and fa.positions is None and n_want != n_got:
        end = len(fa.tokens or fb.tokens or ()) or max(n_want, n_got)
        at, bt = tuple(range(end - n_want, end)), tuple(range(end - n_got, end))
    shared = [p for p in at if p in set(bt)]
    if not shared:
        raise Mismatch("the two have no position in common")
    rows_a, rows_b = ([of.index(p) for p in shared] for of in (at, bt))
    return np.array(rows_a), np.array(rows_b), tuple(shared)


def _positions(n: int, facts: Facts) -> tuple[int, ...] | None:
    if facts.positions is not None:
        return facts.positions if len(facts.positions) == n else None
    return tuple(range(n))


def _same_keys(name: str, want: Array, got: Array) -> tuple[Array, Array]:
    """Keys that only one of them has a place for are left out; what no key fills is nothing (llama.cpp pads)."""
    if got.size == want.size or got.ndim < want.ndim:
        return want, got
    width = min(want.shape[-1], got.shape[-1])
    return want[..., :width], got[..., :width]


def _printed(name: str, whole: Tensor, text: Tensor, fa: Facts, fb: Facts) -> Pair:
    """A's value at the places that B's text shows."""
    shown = text.printed
    if shown is None:
        raise Mismatch(f"{name}: there are no values in it")
    want = _load(whole)
    axis = min(token_axis(name), max(want.ndim - 1, 0))
    if by_key(name) and want.ndim >= 2:
        want = with_keys(want, text.shape[-1], missing_key(name))
    n = rows_of(text.shape, want.shape, axis)
    if n is None or not 0 < n <= want.shape[axis]:
        raise Mismatch(f"{name}: " + _NEVER.format(whole.shape, text.shape))
    here, _, _ = _common_rows(want.shape[axis], n, fa, fb)
    want = want.take(here, axis=axis)
    best: Pair | None = None
    for way in arrangements(want.shape, text.shape):
        laid = way.apply(want)
        corners = laid[np.ix_(*shown.kept)].astype(np.float64)
        power = float((laid.astype(np.float64) ** 2).mean()) if laid.size else 0.0
        totals = _totals(laid, shown.total)
        found = Pair(name, corners, shown.values, 0, None, way.words, shown.resolution, power, totals)
        best = found if best is None or _error(found) < _error(best) else best
    if best is None:
        raise Mismatch(f"{name}: " + _NEVER.format(whole.shape, text.shape))
    return _visible(best, shown.kept)


def _visible(p: Pair, kept: tuple[tuple[int, ...], ...]) -> Pair:
    """As `_used`, of the corners that a text shows."""
    if not p.name.startswith("kq-"):
        return p
    later = np.array(kept[-1])[None, :] > np.array(kept[-2])[:, None]
    return replace(p, want=np.where(later, 0, p.want), got=np.where(later, 0, p.got), totals=None)


def _totals(x: Array, total: float | None) -> Totals | None:
    """Our sum in float32, one after the other as the printer adds, theirs, and what rounding may make of it."""
    if total is None:
        return None
    flat = x.astype(np.float32).reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        running = np.add.accumulate(flat)
        room = float(np.abs(running).max(initial=0)) * flat.size**0.5 * 6e-8 + 1e-6
        length = float(np.sqrt((flat.astype(np.float64) ** 2).sum()))
    return Totals(float(running[-1]), total, room, length * flat.size**0.5)


def _both_printed(name: str, a: Tensor, b: Tensor) -> Pair:
    first, second = a.printed, b.printed
    if first is None or second is None or first.kept != second.kept:
        raise Mismatch(f"{name}: two texts that show different places")
    totals = None
    if first.total is not None and second.total is not None:
        size = abs(first.total) + abs(second.total)
        totals = Totals(first.total, second.total, 1e-6 + 1e-6 * size, size)
    resolution = first.resolution + second.resolution
    return Pair(name, first.values, second.values, 0, None, "", resolution, 0.0, totals)


def _load(tensor: Tensor) -> Array:
    if tensor.load is None:
        raise Mismatch(f"{tensor.name}: there are no values in it")
    return tensor.load()


def _error(p: Pair) -> float:
    return nmse(p.got, p.want)


def worst_token(p: Pair) -> float:
    """NMSE of the worst token."""
    want, got = np.moveaxis(p.want, p.axis, 0), np.moveaxis(p.got, p.axis, 0)
    return float(row_nmse(got, want).max(initial=0))


def worst_unit(p: Pair) -> float:
    """The same for each unit over all tokens, so that one wrong row of a weight does not drown among the others.

    Tokens weigh the same, whatever their size. A unit that hardly moves is measured against a thousandth of the mean.
    """
    want = np.moveaxis(p.want, p.axis, 0).astype(np.float64)
    got = np.moveaxis(p.got, p.axis, 0).astype(np.float64)
    if want.shape[0] < 2 or want.ndim < 2 or by_key(p.name) or p.printed is not None:
        return 0.0
    want, got = want.reshape(want.shape[0], -1), got.reshape(want.shape[0], -1)
    size = np.sqrt((want**2).mean(axis=1, keepdims=True))
    size = np.where(np.isfinite(size) & (size > 0), size, 1)
    with np.errstate(invalid="ignore"):
        error = (((got - want) / size) ** 2).mean(axis=0)
        power = np.maximum(((want / size) ** 2).mean(axis=0), 1e-3)
        found = float(np.nanmax(error / power, initial=0))
    return found
