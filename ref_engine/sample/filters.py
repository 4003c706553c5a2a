"""The filters that look only at the numbers: each a pure function, logits in, logits out, float32 (N,).

N is the vocabulary or the candidates left of it, ascending by token id. A removed candidate is -inf. No
filter changes its input, adds a candidate, changes the order of two candidates or removes the last one; a
filter with nothing to do returns its input. Of equal candidates the lower token id counts as the better.

Every filter does what the sampler of that name in llama.cpp does (`src/llama-sampler.cpp`), with two
deliberate differences. Probabilities and their sums are float64 and rounded to float32 only to be compared
with the parameter, where llama.cpp adds float32 in an order that depends on earlier sorting. And a
candidate that an earlier filter set to -inf is gone: llama.cpp still counts it in `min_keep` and in the
number of candidates that the dynamic temperature normalises by.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from ref_engine.sample.distribution import Logits, best, keep_only, n_candidates, remove_where, softmax


def temperature(logits: Logits, t: float) -> Logits:
    """Divide by t: below 1 sharper, above 1 flatter. t <= 0 is greedy: only the largest logit stays."""
    divisor = np.float32(t)
    if divisor <= 0:
        return keep_only(logits, best(logits, 1))
    with np.errstate(over="ignore"):
        scaled = np.asarray(logits / divisor, dtype=np.float32)
        if np.isposinf(scaled.max()):  # a minute t: shifting by the maximum changes no probability
            scaled = np.asarray((logits - logits.max()) / divisor, dtype=np.float32)
    return scaled


def dynamic_temperature(logits: Logits, t: float, spread: float, exponent: float) -> Logits:
    """A temperature between t - spread and t + spread, higher the less certain the model is.

    The entropy, as a share of the largest possible one (that of equally likely candidates), is raised to
    `exponent` and picks the point in that range (https://arxiv.org/abs/2309.02772). spread <= 0: plain
    `temperature`.
    """
    n = n_candidates(logits)
    if spread <= 0:
        return temperature(logits, t)
    if n <= 1:
        return logits
    share = max(0.0, entropy(softmax(logits))) / math.log(n)
    low, high = max(0.0, t - spread), t + spread
    return temperature(logits, low + (high - low) * share**exponent)


def entropy(probs: npt.NDArray[np.float64]) -> float:
    """Shannon entropy in nats."""
    some = probs[probs > 0]
    return float(-(some * np.log(some)).sum())


def top_k(logits: Logits, k: int) -> Logits:
    """Keep the k largest. k <= 0 keeps all."""
    if k <= 0 or k >= logits.size:
        return logits
    return keep_only(logits, best(logits, k))


def top_p(logits: Logits, p: float, min_keep: int = 0) -> Logits:
    """Keep the fewest most likely candidates whose probabilities add up to p or more, but at least min_keep.

    Nucleus sampling, https://arxiv.org/abs/1904.09751. p >= 1 keeps all, p <= 0 keeps max(1, min_keep).
    """
    if np.float32(p) >= 1 or n_candidates(logits) == 0:
        return logits
    return _keep_mass(logits, logits, softmax(logits), p, min_keep, side="left")


def typical(logits: Logits, p: float, min_keep: int = 0) -> Logits:
    """Keep those whose surprise is nearest to the entropy, until their probabilities exceed p; at least
    min_keep.

    Locally typical sampling, https://arxiv.org/abs/2202.00666; it may remove the most likely candidate.
    p >= 1 keeps all.
    """
    if np.float32(p) >= 1 or n_candidates(logits) == 0:
        return logits
    probs = softmax(logits)
    likely = probs > 0
    distance = np.full(logits.shape, np.inf)
    distance[likely] = np.abs(-np.log(probs[likely]) - entropy(probs))
    return _keep_mass(logits, -distance, probs, p, min_keep, side="right")


def _keep_mass(
    logits: Logits,
    rank: npt.NDArray[np.floating],
    probs: npt.NDArray[np.float64],
    p: float,
    min_keep: int,
    side: Literal["left", "right"],
) -> Logits:
    """Keep the best by `rank` until their mass reaches p ("left") or exceeds it ("right")."""
    alive = n_candidates(logits)
    k = min(256, alive)
    while True:  # most of the mass is in a few candidates: sort more of them only when they do not suffice
        mass = np.cumsum(probs[best(rank, k)]).astype(np.float32)
        n = int(np.searchsorted(mass, np.float32(p), side=side)) + 1
        if n <= k or k == alive:
            break
        k = min(16 * k, alive)
    return keep_only(logits, best(rank, min(max(n, min_keep), alive)))


def min_p(logits: Logits, p: float, min_keep: int = 0) -> Logits:
    """Keep those at least p times as likely as the likeliest; at least max(1, min_keep). p <= 0 keeps all.

    https://arxiv.org/abs/2407.01082. Needs no softmax: the ratio of probabilities is a difference of logits.
    """
    if p <= 0 or n_candidates(logits) == 0:
        return logits
    unlikely = logits < logits.max() + np.log(np.float32(p))
    if logits.size - np.count_nonzero(unlikely) < max(1, min_keep):
        return keep_only(logits, best(logits, max(1, min_keep)))
    return remove_where(logits, unlikely)


def top_n_sigma(logits: Logits, n: float) -> Logits:
    """Keep logits within n standard deviations (of all candidates' logits) of the largest. n <= 0 keeps all.

    https://arxiv.org/abs/2411.07641
    """
    if n <= 0 or n_candidates(logits) <= 1:
        return logits
    alive = logits[logits > -np.inf].astype(np.float64)
    return remove_where(logits, logits < np.float32(alive.max() - n * alive.std()))


def xtc(logits: Logits, probability: float, threshold: float, draw: float, min_keep: int = 0) -> Logits:
    """Exclude top choices: of the candidates with probability >= threshold keep only the least likely one.

    It happens with the given `probability`: when the caller's uniform number `draw` in [0, 1) does not
    exceed it. Nothing happens for probability <= 0, threshold > 0.5 (no two can be above it), or where
    fewer than min_keep candidates would stay. https://github.com/oobabooga/text-generation-webui/pull/6335
    """
    if probability <= 0 or threshold > 0.5 or draw > probability:
        return logits
    alive = n_candidates(logits)
    if alive < 2:
        return logits
    above = (softmax(logits).astype(np.float32) >= np.float32(threshold)) & (logits > -np.inf)
    n_removed = int(np.count_nonzero(above)) - 1
    if n_removed < 1 or alive - n_removed < min_keep:
        return logits
    kept = logits.copy()
    kept[best(logits, n_removed)] = -np.inf
    return kept
