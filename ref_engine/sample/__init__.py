"""Sampling: from logits to a token.

distribution.py  softmax, log-probabilities, the best k          filters.py    temperature, top-k, top-p,
min-p, ... penalties.py     bias, repetition penalties, DRY                 mirostat.py   mirostat 1 and 2
params.py        every option, checked                           sampler.py    the chain, the draw, the
history
"""

from ref_engine.sample.constraint import ClosingConstraint, Constraint
from ref_engine.sample.distribution import Logits, best, check_logits, log_sum_exp, softmax
from ref_engine.sample.filters import (
    dynamic_temperature,
    min_p,
    temperature,
    top_k,
    top_n_sigma,
    top_p,
    typical,
    xtc,
)
from ref_engine.sample.mirostat import mirostat_mu, mirostat_v1, mirostat_v2
from ref_engine.sample.params import CHAIN, GREEDY, SamplingParams
from ref_engine.sample.penalties import Breakers, dry, dry_breakers, logit_bias, penalties
from ref_engine.sample.sampler import Choice, Sampler, TokenLogprob, VocabInfo

__all__ = [
    "CHAIN",
    "GREEDY",
    "Breakers",
    "Choice",
    "ClosingConstraint",
    "Constraint",
    "Logits",
    "Sampler",
    "SamplingParams",
    "TokenLogprob",
    "VocabInfo",
    "best",
    "check_logits",
    "dry",
    "dry_breakers",
    "dynamic_temperature",
    "log_sum_exp",
    "logit_bias",
    "min_p",
    "mirostat_mu",
    "mirostat_v1",
    "mirostat_v2",
    "penalties",
    "softmax",
    "temperature",
    "top_k",
    "top_n_sigma",
    "top_p",
    "typical",
    "xtc",
]
