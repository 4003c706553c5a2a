"""How well a model predicts a text: perplexity = exp(mean of -log p(token | the tokens before it)).

The text is cut into consecutive windows of n_ctx tokens, each run from an empty cache. Every window begins with the
tokens that the tokenizer puts in front of a text (BOS, where the model wants one). The first token of a window has
nothing before it and is given, not scored; `skip` leaves out more, because the first tokens after a cut are harder
than the same tokens in the whole text. A text that fits one window is scored as a whole:
exp(mean over i = 1 .. n-1 of -log p(ids[i] | ids[:i])).
Source: perplexity of fixed-length models, as in the documentation of Hugging Face transformers. llama.cpp's
`llama-perplexity` scores only the second half of each window (here: skip = n_ctx / 2) and puts BOS in place of the
window's first token instead of before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError
from ref_engine.sample.distribution import log_sum_exp

if TYPE_CHECKING:
    from ref_engine.model import Model

_PASS = 128  # tokens in one forward pass; bounds the logits that are held, (_PASS, V) float32


@dataclass(frozen=True)
class Perplexity:
    """`nll` is the mean of -log p in nats over `n_tokens` scored tokens, `nll_error` the standard error of that mean
    (sample standard deviation / sqrt(n), NaN for one token)."""

    nll: float
    nll_error: float
    n_tokens: int
    n_windows: int

    @property
    def value(self) -> float:
        """exp(nll); infinite where that is no float64."""
        return math.exp(self.nll) if self.nll < math.log(np.finfo(np.float64).max) else math.inf

    @property
    def error(self) -> float:
        """Standard error of `value`, to first order: value * nll_error."""
        return self.value * self.nll_error


def windows(ids: Sequence[int], n_ctx: int, prefix: Sequence[int] = ()) -> list[list[int]]:
    """Cut ids into windows of at most n_ctx, each beginning with `prefix`.

    ids may itself begin with `prefix`, which is then not doubled. Raises RefEngineError where n_ctx leaves no room.
    """
    lead = list(prefix)
    body = list(ids[len(lead) :]) if list(ids[: len(lead)]) == lead else list(ids)
    room = n_ctx - len(lead)
    if room < 1 or n_ctx < 2:
        raise RefEngineError(f"a window of {n_ctx} tokens has no room for a token to score")
    return [lead + body[i : i + room] for i in range(0, len(body), room)]


def token_nlls(model: Model, ids: Sequence[int]) -> Iterator[NDArray[np.float64]]:
    """-log p(ids[i] | ids[:i]) in nats for i = 1 .. n-1, float64, in pieces as the passes are done.

    Raises RefEngineError for logits that are NaN or +inf.
    """
    cache = model.new_cache(len(ids))
    for start in range(0, len(ids) - 1, _PASS):
        given = ids[start : min(start + _PASS, len(ids) - 1)]
        logits = model.forward(given, cache)
        nlls = np.empty(len(given))
        for row, target in enumerate(ids[start + 1 : start + 1 + len(given)]):
            total = log_sum_exp(logits[row])
            if not math.isfinite(total):
                raise RefEngineError(f"the logits after token {start + row} of the window are not finite")
            nlls[row] = total - float(logits[row, target])
        yield nlls


def perplexity(
    model: Model,
    ids: Sequence[int],
    n_ctx: int,
    *,
    prefix: Sequence[int] = (),
    skip: int = 1,
    advance: Callable[[int, float], None] = lambda n, nll: None,
) -> Perplexity:
    """Perplexity of token ids under a model, see the top of this file.

    n_ctx    tokens in a window
    prefix   what each window begins with, usually `tokenizer.added_before`
    skip     tokens of each window that are given and not scored, the prefix included; at least 1
    advance  called after each pass with the number of tokens run and the mean -log p so far (NaN at first)

    Raises RefEngineError where no token is left to score.
    """
    if skip < 1:
        raise RefEngineError(f"skip is {skip}: the first token of a window cannot be scored")
    parts = windows(ids, n_ctx, prefix)
    scored: list[NDArray[np.float64]] = []
    for part in parts:
        position = 1
        for nlls in token_nlls(model, part):
            kept = nlls[max(0, skip - position) :]
            position += nlls.size
            if kept.size:
                scored.append(kept)
            advance(nlls.size, _mean(scored))
    return _summary(scored, len(parts))


def _mean(scored: list[NDArray[np.float64]]) -> float:
    return float(np.concatenate(scored).mean()) if scored else math.nan


def _summary(scored: list[NDArray[np.float64]], n_windows: int) -> Perplexity:
    if not scored:
        raise RefEngineError("the text is too short: no token is left to score")
    nlls = np.concatenate(scored)
    with np.errstate(invalid="ignore"):  # a token of probability 0: mean inf, error NaN
        deviation = float(nlls.std(ddof=1)) if nlls.size > 1 else math.nan
    return Perplexity(float(nlls.mean()), deviation / math.sqrt(nlls.size), nlls.size, n_windows)
