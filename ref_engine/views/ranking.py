"""Rows of logits as distributions: the likeliest tokens, the entropy, and where a given token stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ref_engine.reference.sums import F32
from ref_engine.sample.distribution import best, check_logits

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """n distributions over a vocabulary; logarithms are natural, entropies in nats.

    ids (n, k) int64 and logprobs (n, k): the k likeliest tokens, the likeliest first, of equals the lower id.
    entropy (n,): -sum p ln p.
    logprob (n,), rank (n,) int64: of one token each, the likeliest having rank 1; NaN and 0 where none was given.
    """

    ids: NDArray[np.int64]
    logprobs: F64
    entropy: F64
    logprob: F64
    rank: NDArray[np.int64]


def ranked(logits: F32, k: int, given: Sequence[int | None]) -> Ranked:
    """logits (n, V) float32, and for each row the token to look for. Raises RefEngineError for NaN and infinity."""
    n, k = logits.shape[0], min(k, logits.shape[1])
    out = Ranked(
        np.empty((n, k), np.int64), np.empty((n, k)), np.empty(n), np.full(n, np.nan), np.zeros(n, np.int64)
    )  # fmt: skip
    for i, (scores, token) in enumerate(zip(logits, given, strict=True)):
        row = check_logits(scores, logits.shape[1])
        x = row.astype(np.float64)
        x -= x.max()
        p = np.exp(x)
        total = float(p.sum())
        log_total = math.log(total)
        out.ids[i] = best(row, k)
        out.logprobs[i] = x[out.ids[i]] - log_total
        # -sum p ln p = ln(total) - sum(p x): a removed token has p = 0 and x = -inf, and counts nothing
        x[p == 0] = 0
        out.entropy[i] = max(0.0, log_total - float(p @ x) / total)
        if token is not None:
            out.logprob[i] = float(row[token]) - float(row.max()) - log_total
            before = np.count_nonzero(row > row[token]) + np.count_nonzero(row[:token] == row[token])
            out.rank[i] = 1 + before
    return out


def stacked(parts: Sequence[Ranked]) -> Ranked:
    """Several, one below the other."""
    return Ranked(*(np.concatenate([getattr(p, name) for p in parts]) for name in Ranked.__dataclass_fields__))
