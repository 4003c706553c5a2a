"""Logits as a distribution: softmax, log-probabilities and exact selection of the best few without a full
sort.

A logit of -inf means "removed": that token is no candidate, has probability 0 and is counted nowhere.
"""

import math

import numpy as np
import numpy.typing as npt

from ref_engine.errors import RefEngineError

Logits = npt.NDArray[np.float32]
REMOVED = np.float32(-np.inf)
_PIECE = 8192  # logits handled at once where a copy of all in float64 would leave the processor's cache


def check_logits(logits: npt.NDArray[np.generic], n_vocab: int) -> Logits:
    """The logits as float32 (V,), or a RefEngineError where nothing sensible can be sampled from them.

    Refused: another shape, NaN, +inf, and no candidate at all (every logit -inf).
    """
    if logits.shape != (n_vocab,):
        raise RefEngineError(f"logits have shape {logits.shape}, the vocabulary has {n_vocab} tokens")
    values = logits.astype(np.float32, copy=False)
    top = float(values.max())  # NaN wins every comparison inside max, so one pass finds all three faults
    if math.isnan(top):
        raise RefEngineError(f"logits hold NaN, first at token {int(np.isnan(values).argmax())}")
    if top == math.inf:
        raise RefEngineError(f"logits hold +inf, first at token {int(values.argmax())}")
    if top == -math.inf:
        raise RefEngineError("logits leave no candidate: every one is -inf")
    return values


def n_candidates(logits: npt.NDArray[np.floating]) -> int:
    """How many tokens have not been removed."""
    return int(np.count_nonzero(logits > REMOVED))


def softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Probabilities, float64 (N,), sum 1; 0 for a removed token. At least one candidate must be left."""
    weights = logits.astype(np.float64)  # then in place: fresh memory for so many costs more than exp()
    weights -= float(logits.max())
    np.exp(weights, out=weights)
    weights /= weights.sum()
    return weights


def log_sum_exp(logits: Logits) -> float:
    """Natural log of the sum of exp(logits), in float64: a logit minus this is its log-probability."""
    top = float(logits.max())
    pieces = (logits[i : i + _PIECE].astype(np.float64) for i in range(0, logits.size, _PIECE))
    return top + math.log(math.fsum(float(np.exp(piece - top).sum()) for piece in pieces))


def best(values: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.intp]:
    """Positions of the k largest values (N,), largest first; among equals the lower position first.

    k is clipped to 0..N. Cost O(N + k log k), unless very many values tie at the border.
    """
    n = values.size
    k = min(max(k, 0), n)
    if k == 0:
        return np.empty(0, dtype=np.intp)
    if k == 1:
        return np.array([values.argmax()])
    if n_candidates(values) < n // 2:  # a grammar leaves few: partition is slow on very many equal values
        left = np.flatnonzero(values > REMOVED)
        chosen = left[best(values[left], k)]
        removed = np.flatnonzero(values == REMOVED)[: k - chosen.size]
        return np.concatenate([chosen, removed])
    border = np.partition(values, n - k)[n - k]  # the k-th largest
    at_least = np.flatnonzero(values >= border)  # ascending, so that the stable sort settles ties by position
    return at_least[np.argsort(-values[at_least], kind="stable")[:k]]


def keep_only(logits: Logits, positions: npt.NDArray[np.intp]) -> Logits:
    """A copy in which every other position is removed."""
    kept = np.full_like(logits, REMOVED)
    kept[positions] = logits[positions]
    return kept


def remove_where(logits: Logits, mask: npt.NDArray[np.bool_]) -> Logits:
    """A copy in which the masked positions are removed."""
    kept = logits.copy()
    kept[mask] = REMOVED
    return kept
