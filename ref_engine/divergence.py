"""How far one model's predictions are from another's over a text: Kullback-Leibler divergence, token by token.

Both models run the same windows of token ids. For each scored position, with P the base's distribution over the next
token, Q the other's and y the token that really came:

    KL          sum over tokens i of P(i) (ln P(i) - ln Q(i)), in nats
    p change    Q(y) - P(y)
    same top    the most probable token is the same one (the lowest id, where several are)

All in float64 from float32 logits. Definitions and errors are those that llama.cpp's `llama-perplexity
--kl-divergence` prints (tools/perplexity): an error is the standard error of a mean, sample standard deviation /
sqrt(n), carried through exp, ratio and difference to first order with the covariance of the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError
from ref_engine.perplexity import windows
from ref_engine.sample.distribution import log_sum_exp

if TYPE_CHECKING:
    from ref_engine.model import Model

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Span = tuple[int, int]  # rows of a window, the first and the one after the last

PERCENTILES = (0.0, 0.1, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)
_MOST_TOKENS = 128  # in one pass
_MOST_LOGITS = 1 << 24  # in one pass, 64 MB: 64 tokens of a vocabulary of 262,144


@dataclass(frozen=True)
class Window:
    """Token ids run from an empty cache; the first `skip` of them (at least 1) are given, the others scored."""

    ids: tuple[int, ...]
    skip: int

    @property
    def n_scored(self) -> int:
        return max(0, len(self.ids) - self.skip)


@dataclass(frozen=True)
class Rows:
    """What was measured at each scored position, in the order of the text: float64 (N,), `same_top` bool (N,)."""

    nll_base: F64  # -ln P(y)
    nll: F64  # -ln Q(y)
    kl: F64
    kl_reverse: F64  # of Q from P; NaN where the base does not have its small probabilities
    p_change: F64
    same_top: NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error (NaN where one token is too few to tell)."""

    value: float
    error: float


@dataclass(frozen=True)
class Divergence:
    """The summary of `Rows`. Percentiles by name of PERCENTILES; 0 is the minimum, 50 the median, 100 the maximum."""

    n_tokens: int
    perplexity_base: Estimate
    perplexity: Estimate
    correlation: float  # of ln P(y) and ln Q(y)
    ln_ratio: Estimate  # ln(perplexity / perplexity_base)
    ratio: Estimate
    difference: Estimate  # perplexity - perplexity_base
    kl: Estimate
    kl_percentiles: dict[float, float]
    kl_reverse: Estimate
    p_change: Estimate
    p_change_percentiles: dict[float, float]
    p_change_rms: Estimate
    same_top: Estimate


class Base(Protocol):
    """The side that is compared against: a model, or what one left in a file."""

    @property
    def n_vocab(self) -> int: ...

    @property
    def floor(self) -> float:
        """ln P at and below this is not known: such tokens are left out of the sum; -inf for a model."""
        ...

    def log_probs(self, number: int, window: Window, spans: Sequence[Span]) -> Iterator[F64]:
        """ln P of the rows of each span of the window with that number: (rows, V) float64."""
        ...


# -- windows ----------------------------------------------------------------------------------------------------


def text_windows(ids: Sequence[int], n_ctx: int, prefix: Sequence[int] = (), skip: int = 1) -> list[Window]:
    """Windows as `ref_engine.perplexity` makes them, those with nothing to score left out."""
    if skip < 1:
        raise RefEngineError(f"skip is {skip}: the first token of a window cannot be scored")
    return _some([Window(tuple(part), skip) for part in windows(ids, n_ctx, prefix)])


def half_windows(ids: Sequence[int], n_ctx: int, bos: int | None) -> list[Window]:
    """Windows as llama.cpp makes them: whole ones only, BOS (where there is one) in place of each one's first token,
    and of each the tokens after the middle scored: ids[n_ctx // 2 + 1:].

    ids: the text's, BOS included where the tokenizer adds one.
    """
    if n_ctx < 3:
        raise RefEngineError(f"a window of {n_ctx} tokens has no second half to score")
    parts = [list(ids[i : i + n_ctx]) for i in range(0, len(ids) - n_ctx + 1, n_ctx)]
    return _some([Window(tuple([bos, *part[1:]] if bos is not None else part), n_ctx // 2 + 1) for part in parts])


def _some(found: list[Window]) -> list[Window]:
    kept = [window for window in found if window.n_scored]
    if not kept:
        raise RefEngineError("the text is too short: no token is left to score")
    return kept


def spans(window: Window, n_vocab: int) -> list[Span]:
    """The rows of a window that score a token, in pieces that bound the logits held at once."""
    size = max(1, min(_MOST_TOKENS, _MOST_LOGITS // n_vocab))
    first, last = window.skip - 1, len(window.ids) - 1
    return [(a, min(a + size, last)) for a in range(first, last, size)]


# -- measuring --------------------------------------------------------------------------------------------------


def scored_logits(model: Model, window: Window, pieces: Sequence[Span]) -> Iterator[F32]:
    """The model's logits of each span of a window: (rows, V) float32. What is not scored costs no head."""
    cache = model.new_cache(len(window.ids))
    if pieces and pieces[0][0] > 0:
        model.step([(window.ids[: pieces[0][0]], cache)])
    for a, b in pieces:
        yield model.forward(window.ids[a:b], cache)


@dataclass(frozen=True)
class ModelBase:
    """A model as the base. `keep` sees each window's logits, (window number, (rows, V) float32), before they go."""

    model: Model
    keep: Callable[[int, F32], None] = lambda number, logits: None
    floor: float = -math.inf

    @property
    def n_vocab(self) -> int:
        return self.model.spec.n_vocab

    def log_probs(self, number: int, window: Window, spans: Sequence[Span]) -> Iterator[F64]:
        for (first, _), logits in zip(spans, scored_logits(self.model, window, spans), strict=True):
            check_finite(logits, first, "the base's")
            self.keep(number, logits)
            yield np.stack([log_softmax(row) for row in logits])


def log_softmax(logits: F32) -> F64:
    """ln of the probabilities of one row: (V,) -> (V,) float64; -inf for a logit of -inf."""
    return logits.astype(np.float64) - log_sum_exp(logits)


def check_finite(logits: F32, first: int, whose: str) -> None:
    """Raises RefEngineError for NaN, +inf, or a row that is all -inf, naming the token after which it comes."""
    top = logits.max(axis=1)
    bad = np.flatnonzero(~np.isfinite(top))
    if bad.size:
        raise RefEngineError(f"{whose} logits after token {first + int(bad[0])} of the window are not finite")


def compare_rows(base: F64, logits: F32, targets: Sequence[int], floor: float = -math.inf) -> Rows:
    """ln P (T, V) float64 against the logits (T, V) of Q, targets (T,) token ids. `floor`: see `Base`."""
    n = len(targets)
    found = np.empty((5, n))
    same = np.empty(n, bool)
    for t, (ln_p, row, y) in enumerate(zip(base, logits, targets, strict=True)):
        ln_q = log_softmax(row)
        reverse = _kl(ln_q, ln_p) if floor == -math.inf else math.nan
        found[:, t] = -ln_p[y], -ln_q[y], _kl(ln_p, ln_q, floor), reverse, math.exp(ln_q[y]) - math.exp(ln_p[y])
        same[t] = ln_p.argmax() == ln_q.argmax()
    return Rows(found[0], found[1], found[2], found[3], found[4], same)


def _kl(ln_p: F64, ln_q: F64, floor: float = -math.inf) -> float:
    """sum P (ln P - ln Q) over tokens with ln P above the floor; infinite where P has a token that Q has removed."""
    known = ln_p > floor
    if not known.all():
        ln_p, ln_q = ln_p[known], ln_q[known]
    return float((np.exp(ln_p) * (ln_p - ln_q)).sum())


def diverge(
    base: Base,
    model: Model,
    parts: Sequence[Window],
    advance: Callable[[int, float], None] = lambda n, kl: None,
) -> Rows:
    """Run base and model over the windows, side by side, holding the logits of one piece at a time.

    advance: called with the number of tokens just run and the mean KL so far.
    Raises RefEngineError for vocabularies of different sizes and for logits that are not finite.
    """
    if base.n_vocab != model.spec.n_vocab:
        raise RefEngineError(f"the base has {base.n_vocab} tokens in its vocabulary, the model {model.spec.n_vocab}")
    found: list[Rows] = []
    total = count = 0.0
    for number, window in enumerate(parts):
        pieces = spans(window, base.n_vocab)
        both = zip(pieces, base.log_probs(number, window, pieces), scored_logits(model, window, pieces), strict=True)
        done = 0
        for (a, b), ln_p, logits in both:
            check_finite(logits, a, "the model's")
            found.append(compare_rows(ln_p, logits, window.ids[a + 1 : b + 1], base.floor))
            total, count = total + float(found[-1].kl.sum()), count + b - a
            advance(b - done, total / count)
            done = b
    return join(found)


def join(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other."""
    if not parts:
        raise RefEngineError("the text is too short: no token is left to score")
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in Rows.__dataclass_fields__))


# -- summing up -------------------------------------------------------------------------------------------------


def summary(rows: Rows) -> Divergence:
    """The figures of the text as a whole. A KL that is infinite anywhere makes the mean infinite and its error NaN."""
    base, other = _mean(rows.nll_base), _mean(rows.nll)
    covariance = _covariance(rows.nll_base, rows.nll)
    ratio = Estimate(other.value - base.value, _root(base.error**2 + other.error**2 - 2 * covariance))
    ppl_base, ppl = _exp(base), _exp(other)
    change = ppl_base.error**2 + ppl.error**2 - 2 * ppl.value * ppl_base.value * covariance
    square = _mean(rows.p_change**2)
    rms = math.sqrt(square.value)
    same = float(rows.same_top.mean())
    n = rows.kl.size
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = float(np.float64(covariance) / (base.error * other.error))
    return Divergence(
        n_tokens=n,
        perplexity_base=ppl_base,
        perplexity=ppl,
        correlation=correlation,
        ln_ratio=ratio,
        ratio=_exp(ratio),
        difference=Estimate(ppl.value - ppl_base.value, _root(change)),
        kl=_mean(rows.kl),
        kl_percentiles=percentiles(rows.kl),
        kl_reverse=_mean(rows.kl_reverse),
        p_change=_mean(rows.p_change),
        p_change_percentiles=percentiles(rows.p_change),
        p_change_rms=Estimate(rms, square.error / (2 * rms) if rms else 0.0 * square.error),
        same_top=Estimate(same, math.sqrt(same * (1 - same) / (n - 1)) if n > 1 else math.nan),
    )


def percentiles(values: F64) -> dict[float, float]:
    """PERCENTILES of some numbers, linear between neighbours: rank p / 100 * (n - 1)."""
    ordered = np.sort(values)
    found = {}
    for p in PERCENTILES:
        rank = p / 100 * (ordered.size - 1)
        low = int(rank)
        part = rank - low
        above = (part * ordered[low + 1]) if part else 0.0
        found[p] = float((1 - part) * ordered[low] + above)
    return found


def _mean(values: F64) -> Estimate:
    with np.errstate(invalid="ignore"):  # an infinite value: mean inf, error NaN
        error = float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else math.nan
    return Estimate(float(values.mean()), error)


def _covariance(a: F64, b: F64) -> float:
    """Of the two means."""
    if a.size < 2:
        return math.nan
    with np.errstate(invalid="ignore"):
        return float(((a - a.mean()) * (b - b.mean())).sum() / (a.size - 1) / a.size)


def _exp(of: Estimate) -> Estimate:
    value = math.exp(of.value) if of.value < 709 else math.inf if of.value == of.value else math.nan
    return Estimate(value, value * of.error)


def _root(variance: float) -> float:
    """Rounding may leave a variance that is zero just below it."""
    return math.sqrt(max(0.0, variance)) if variance == variance else math.nan
