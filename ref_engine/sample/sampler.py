"""From logits to one token: the chain of filters in llama.cpp's order, then one draw from what is left."""

import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ref_engine.errors import RefEngineError
from ref_engine.sample import filters
from ref_engine.sample.constraint import Constraint
from ref_engine.sample.distribution import REMOVED, Logits, best, check_logits, log_sum_exp, softmax
from ref_engine.sample.mirostat import mirostat_mu, mirostat_v1, mirostat_v2
from ref_engine.sample.params import NEEDS_IDS, SamplingParams
from ref_engine.sample.penalties import Breakers, dry, logit_bias, penalties


@dataclass(frozen=True)
class VocabInfo:
    """What a sampler must know of a vocabulary; `breakers` (see `dry_breakers`) only where DRY is in use."""

    n_vocab: int
    eog_ids: frozenset[int] = frozenset()
    breakers: Breakers = field(default_factory=dict)


@dataclass(frozen=True)
class TokenLogprob:
    token: int
    logprob: float


@dataclass(frozen=True)
class Choice:
    """A sampled token. Log-probabilities are natural logs and those of the model: log-softmax of the raw
    logits, before any bias, penalty, filter or temperature (llama.cpp's and OpenAI's `logprobs`).
    """

    token: int
    logprob: float
    top_logprobs: tuple[TokenLogprob, ...] = ()  # best first; need not hold the token itself


class Sampler:
    """The state of one sampled text: seeded random numbers, the tokens so far, mirostat's mu.

    Random numbers are NumPy's PCG64: the same seed, parameters and logits give the same tokens on every
    machine, but not the tokens of llama.cpp, which draws from a Mersenne twister.
    """

    def __init__(self, params: SamplingParams, vocab: VocabInfo, *, logprobs: int = 0) -> None:
        """Raises RefEngineError for a bias or a number of alternatives that the vocabulary does not have."""
        if isinstance(logprobs, bool) or not isinstance(logprobs, int) or not 0 <= logprobs <= vocab.n_vocab:
            raise RefEngineError(f"logprobs must be from 0 to {vocab.n_vocab}, not {logprobs!r}")
        for token in params.logit_bias:
            if token >= vocab.n_vocab:
                raise RefEngineError(f"logit_bias: token {token} is not below {vocab.n_vocab}")
        self.params = params
        self.vocab = vocab
        self.logprobs = logprobs
        self.seed = secrets.randbits(32) if params.seed in (None, -1) else int(params.seed or 0)
        self.mu = 2.0 * params.mirostat_tau
        self.history: list[int] = []
        self._random = np.random.Generator(np.random.PCG64(self.seed))
        self._bias = dict(params.logit_bias)
        if params.ignore_eos:
            self._bias |= {token: -math.inf for token in vocab.eog_ids}

    def accept(self, tokens: Iterable[int]) -> None:
        """Add tokens, as those of a prompt, to the history that penalties look at. `sample` adds its own."""
        ids = [int(token) for token in tokens]
        for token in ids:
            if not 0 <= token < self.vocab.n_vocab:
                raise RefEngineError(f"token {token} is outside the vocabulary of {self.vocab.n_vocab}")
        self.history += ids

    def sample(self, logits: npt.NDArray[np.generic], constraint: Constraint | None = None) -> Choice:
        """Choose the next token from logits (V,), any float type; see `check_logits` for what is refused.

        constraint: what may come next. A token is chosen as if there were none, and only if that one may not come
        another one, of those that may: as llama.cpp does it (`common_sampler_sample`), since asking for one token is
        much cheaper than for all. Log-probabilities are those without a constraint.
        """
        raw = check_logits(np.asarray(logits), self.vocab.n_vocab)
        mu, token = self.mu, self._pick(raw)
        if constraint is not None and not constraint.allows(token):
            self.mu = mu
            token = self._pick(_only(raw, constraint.mask()))
        return self._choice(raw, token)

    def force(self, logits: npt.NDArray[np.generic], token: int) -> Choice:
        """The token that comes next whatever the logits say, with its log-probability."""
        raw = check_logits(np.asarray(logits), self.vocab.n_vocab)
        if not 0 <= token < self.vocab.n_vocab:
            raise RefEngineError(f"token {token} is outside the vocabulary of {self.vocab.n_vocab}")
        return self._choice(raw, token)

    def replace(self, logits: npt.NDArray[np.generic], token: int) -> Choice:
        """This token instead of the one that has just been chosen from the same logits."""
        del self.history[-1:]
        return self.force(logits, token)

    def _choice(self, raw: Logits, token: int) -> Choice:
        self.history.append(token)
        total = log_sum_exp(raw)
        top = tuple(TokenLogprob(int(i), float(raw[i]) - total) for i in best(raw, self.logprobs))
        return Choice(token, float(raw[token]) - total, top)

    def candidates(self, logits: Logits) -> tuple[npt.NDArray[np.intp], Logits]:
        """What the filters leave of logits (V,): token ids ascending, their logits. XTC draws a number."""
        ids, values = None, _require_finite(logit_bias(logits, self._bias))
        chain = ("temperature", "mirostat") if self.params.mirostat else self.params.samplers
        for i, name in enumerate(chain):
            filtered = self._filter(name, values)
            if filtered is values:
                continue
            values = _require_finite(filtered) if name in NEEDS_IDS else filtered
            if NEEDS_IDS.isdisjoint(chain[i + 1 :]):  # from here on work with the few that are left
                ids, values = _compact(ids, values)
        return _compact(ids, values)

    def _pick(self, raw: Logits) -> int:
        if self.params.greedy:  # spares sorting the vocabulary
            return int(_require_finite(self._penalized(raw)).argmax())
        ids, values = self.candidates(raw)
        probs = softmax(values)
        mass = np.cumsum(probs)
        # One number per token, as in llama.cpp; `right` steps over candidates of probability 0.
        drawn = int(np.searchsorted(mass, self._random.random() * mass[-1], side="right"))
        position = min(drawn, int(np.flatnonzero(probs)[-1]))
        if self.params.mirostat:
            p = self.params
            self.mu = mirostat_mu(self.mu, float(probs[position]), p.mirostat_tau, p.mirostat_eta)
        return int(ids[position])

    def _penalized(self, raw: Logits) -> Logits:
        values = logit_bias(raw, self._bias)
        for name in self.params.samplers:
            if name in NEEDS_IDS:
                values = self._filter(name, values)
        return values

    def _filter(self, name: str, values: Logits) -> Logits:
        p = self.params
        match name:
            case "penalties":
                last = self._last(p.repeat_last_n)
                return penalties(values, last, p.repeat_penalty, p.frequency_penalty, p.presence_penalty)
            case "dry":
                last = self._last(p.dry_penalty_last_n)
                length, breakers = p.dry_allowed_length, self.vocab.breakers
                return dry(values, last, p.dry_multiplier, p.dry_base, length, breakers)
            case "top_n_sigma":
                return filters.top_n_sigma(values, p.top_n_sigma)
            case "top_k":
                return filters.top_k(values, p.top_k)
            case "typ_p":
                return filters.typical(values, p.typical_p, p.min_keep)
            case "top_p":
                return filters.top_p(values, p.top_p, p.min_keep)
            case "min_p":
                return filters.min_p(values, p.min_p, p.min_keep)
            case "xtc":
                draw = float(self._random.random()) if p.xtc_probability > 0 else 1.0
                return filters.xtc(values, p.xtc_probability, p.xtc_threshold, draw, p.min_keep)
            case "temperature":
                spread = 0.0 if p.mirostat else p.dynatemp_range
                return filters.dynamic_temperature(values, p.temperature, spread, p.dynatemp_exponent)
            case "mirostat" if p.mirostat == 1:
                return mirostat_v1(values, self.mu, self.vocab.n_vocab)
            case "mirostat":
                return mirostat_v2(values, self.mu)
            case _:
                raise RefEngineError(f"no filter is called {name!r}")

    def _last(self, n: int) -> Sequence[int]:
        return self.history if n < 0 else self.history[-n:] if n else ()


def _only(values: Logits, allowed: npt.NDArray[np.bool_]) -> Logits:
    """A copy without the tokens that are not allowed. RefEngineError where none is left."""
    if allowed.shape != values.shape:
        raise RefEngineError(f"the mask of a grammar has shape {allowed.shape}, the logits {values.shape}")
    left = np.where(allowed, values, REMOVED)
    if float(left.max()) == -math.inf:
        raise RefEngineError("the grammar allows no token that has a probability")
    return left


def _compact(ids: npt.NDArray[np.intp] | None, values: Logits) -> tuple[npt.NDArray[np.intp], Logits]:
    """Only the candidates, in the order of their ids; ids None means that values[i] is that of token i."""
    left = np.flatnonzero(values > REMOVED)
    return left if ids is None else ids[left], values[left]


def _require_finite(values: Logits) -> Logits:
    """No filter removes the last candidate, but biases may ban all tokens, or lift one beyond float32."""
    top = float(values.max())
    if top == -math.inf:
        raise RefEngineError("logit_bias and ignore_eos leave no token to choose from")
    if not math.isfinite(top):
        raise RefEngineError("logit_bias and penalties lift a logit beyond the range of float32")
    return values
