"""Mirostat: hold the surprise of the text near a target (https://arxiv.org/abs/2007.14966).

The state is one number, mu, the largest surprise in bits that is allowed. It is passed in and returned:

    left = mirostat_v2(logits, mu)             # drop what is more surprising than mu
    p = softmax(left)[token]                   # after sampling token from what is left
    mu = mirostat_mu(mu, p, tau, eta)          # move mu against the error

mu starts at 2 * tau. Both filters keep at least one candidate.
"""

import math

import numpy as np

from ref_engine.sample.distribution import Logits, best, keep_only, n_candidates, softmax
from ref_engine.sample.filters import top_k

N_FIT = 100  # version 1 fits its exponent to this many of the likeliest tokens, as llama.cpp does


def mirostat_v1(logits: Logits, mu: float, n_vocab: int) -> Logits:
    """Top-k with the k at which a Zipf law fitted to the likeliest 100 tokens has the surprise mu (bits)."""
    alive = n_candidates(logits)
    if alive <= 1:
        return logits
    sorted_logits = logits[best(logits, min(N_FIT, alive))].astype(np.float64)
    drops = sorted_logits[:-1] - sorted_logits[1:]  # log(p_i / p_i+1): the softmax cancels out
    ranks = np.arange(1, sorted_logits.size, dtype=np.float64)
    steps = np.log((ranks + 1) / ranks)
    exponent = float((steps * drops).sum() / (steps * steps).sum())
    return top_k(logits, _zipf_k(exponent, mu, n_vocab, alive))


def _zipf_k(exponent: float, mu: float, n_vocab: int, alive: int) -> int:
    """The k of equation 2 of the paper, clipped to 1..alive; worked in logarithms, where nothing overflows.

    Two cases that the equation leaves open take their limits: exponent 1 (0/0) and exponent 0, equally likely
    tokens, where k is all or one.
    """
    epsilon = exponent - 1.0
    log_vocab = math.log(max(n_vocab, 2))
    if abs(epsilon) < 1e-9:
        log_ratio = -math.log(log_vocab)
    elif epsilon > 0:
        log_ratio = math.log(epsilon) - math.log(-math.expm1(-epsilon * log_vocab))
    else:
        log_ratio = math.log(-epsilon) - math.log(math.expm1(-epsilon * log_vocab))
    log_base = log_ratio + mu * math.log(2.0)
    if exponent <= 0:
        return alive if log_base > 0 else 1
    log_k = min(log_base / exponent, math.log(alive) + 1)
    return min(max(int(math.exp(log_k)), 1), alive)


def mirostat_v2(logits: Logits, mu: float) -> Logits:
    """Remove every candidate whose surprise, -log2 of its probability, is above mu; the likeliest stays."""
    if n_candidates(logits) == 0:
        return logits
    probs = softmax(logits)
    with np.errstate(divide="ignore"):  # a removed candidate has infinite surprise
        surprise = (-np.log2(probs)).astype(np.float32)
    n = int(np.count_nonzero(surprise <= np.float32(mu)))
    return keep_only(logits, best(logits, max(1, n)))


def mirostat_mu(mu: float, probability: float, tau: float, eta: float) -> float:
    """The next mu, given the probability (after the filter) of the token that was sampled."""
    return mu - eta * (-math.log2(probability) - tau)
