"""The chain, the draw, log-probabilities, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest

from ref_engine.errors import RefEngineError
from ref_engine.sample import GREEDY, Logits, Sampler, SamplingParams, TokenLogprob, VocabInfo

INF = math.inf
OPEN: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}  # nothing but the draw
PROBS = (0.5, 0.25, 0.125, 0.0625, 0.0625)


def logits_of(*probs: float) -> Logits:
    return np.array([math.log(p) if p else -INF for p in probs], dtype=np.float32)


def sampler(n_vocab: int = 5, logprobs: int = 0, eog: frozenset[int] = frozenset(), **options: Any) -> Sampler:
    return Sampler(SamplingParams(**options), VocabInfo(n_vocab, eog), logprobs=logprobs)


# --- the choice and its log-probabilities -----------------------------------------------------------------


def test_greedy_takes_the_lower_id_of_a_tie() -> None:
    choice = Sampler(GREEDY, VocabInfo(4)).sample(np.array([1.0, 3.0, 3.0, 2.0]))
    assert choice.token == 1


def test_logprobs_are_those_of_the_raw_logits() -> None:
    s = sampler(logprobs=3, temperature=0.0, logit_bias={0: -INF}, repeat_penalty=5.0)
    choice = s.sample(logits_of(*PROBS))
    assert choice.token == 1
    assert choice.logprob == pytest.approx(math.log(0.25), abs=1e-6)
    assert [t.token for t in choice.top_logprobs] == [0, 1, 2]
    assert [t.logprob for t in choice.top_logprobs] == pytest.approx([math.log(p) for p in PROBS[:3]], abs=1e-6)


def test_alternatives_of_a_tie_come_by_id_and_may_be_all() -> None:
    choice = sampler(n_vocab=3, logprobs=3, temperature=0.0).sample(np.array([0.0, 0.0, -INF]))
    half = pytest.approx(-math.log(2))
    assert choice.top_logprobs == (TokenLogprob(0, half), TokenLogprob(1, half), TokenLogprob(2, -INF))


@pytest.mark.parametrize("n", [-1, 6, True, 1.0])
def test_number_of_alternatives_is_checked(n: int) -> None:
    with pytest.raises(RefEngineError, match="logprobs must be from 0 to 5"):
        sampler(logprobs=n)


# --- the draw ---------------------------------------------------------------------------------------------


def chi_square(options: dict[str, Any], logits: Logits, expected: dict[int, float], n: int = 4000) -> float:
    s = sampler(n_vocab=logits.size, seed=12345, **options)
    counts = np.bincount([s.sample(logits).token for _ in range(n)], minlength=logits.size)
    assert set(np.flatnonzero(counts)) <= set(expected)
    return float(sum((counts[i] - n * p) ** 2 / (n * p) for i, p in expected.items()))


def test_draws_follow_the_distribution() -> None:
    # 4 degrees of freedom: 18.47 is exceeded once in a thousand; the seed is fixed, so always or never
    assert chi_square(OPEN, logits_of(*PROBS), dict(enumerate(PROBS))) < 18.47


def test_draws_follow_the_filtered_distribution() -> None:
    options = {"temperature": 0.5, "top_k": 3, "top_p": 1.0, "min_p": 0.0}
    squares = [p * p for p in PROBS[:3]]  # temperature 1/2 squares the odds
    expected = {i: square / sum(squares) for i, square in enumerate(squares)}
    assert chi_square(options, logits_of(*PROBS), expected) < 13.82  # 2 degrees of freedom


def test_a_wrong_distribution_would_be_noticed() -> None:
    assert chi_square(OPEN, logits_of(*PROBS), dict(enumerate((0.45, 0.3, 0.125, 0.0625, 0.0625)))) > 18.47


def test_impossible_tokens_are_never_drawn() -> None:
    s = sampler(seed=3, **OPEN)
    logits = logits_of(0.0, 0.5, 0.0, 0.5, 0.0)
    assert {s.sample(logits).token for _ in range(300)} == {1, 3}


def test_same_seed_same_tokens() -> None:
    logits = np.zeros(1000, np.float32)

    def draws(seed: int | None) -> tuple[list[int], int]:
        s = sampler(n_vocab=1000, seed=seed, **OPEN)
        return [s.sample(logits).token for _ in range(20)], s.seed

    assert draws(7) == draws(7)
    assert draws(7)[0] != draws(8)[0]
    fresh, seed = draws(None)
    assert draws(seed)[0] == fresh, "a fresh seed is reported, so that the run can be repeated"
    assert draws(None)[1] != draws(-1)[1]
    assert draws(0)[1] == 0


def test_xtc_happens_as_often_as_asked() -> None:
    s = sampler(seed=5, xtc_probability=0.3, xtc_threshold=0.2, **{**OPEN, "samplers": ("xtc",)})
    excluded = sum(0 not in s.candidates(logits_of(*PROBS))[0] for _ in range(3000))
    assert abs(excluded - 900) < 3.3 * math.sqrt(3000 * 0.3 * 0.7)  # fixed seed: always or never


# --- the chain --------------------------------------------------------------------------------------------


def test_order_of_the_chain_matters() -> None:
    # tokens of 1/2 1/4 1/8 1/16 1/16. top_k 2 first leaves 2/3 and 1/3, of which top_p 0.6 keeps one;
    # top_p 0.6 first keeps two.
    logits = logits_of(*PROBS)
    first_k = sampler(top_k=2, top_p=0.6, samplers=("top_k", "top_p"))
    first_p = sampler(top_k=2, top_p=0.6, samplers=("top_p", "top_k"))
    assert first_k.candidates(logits)[0].tolist() == [0]
    assert first_p.candidates(logits)[0].tolist() == [0, 1]


def test_a_penalty_after_a_filter_still_knows_its_tokens() -> None:
    s = sampler(top_k=2, repeat_penalty=2.0, samplers=("top_k", "penalties"))
    s.accept([2, 4])
    ids, values = s.candidates(np.array([0.0, 1.0, 6.0, 0.0, 8.0], np.float32))
    assert (ids.tolist(), values.tolist()) == ([2, 4], [3.0, 4.0])


def test_left_out_filters_do_nothing() -> None:
    ids, values = sampler(samplers=()).candidates(logits_of(*PROBS))
    assert ids.tolist() == [0, 1, 2, 3, 4] and values.tolist() == logits_of(*PROBS).tolist()


@pytest.mark.parametrize(("last_n", "token"), [(0, 0), (1, 0), (2, 1), (64, 1), (-1, 1)])
def test_penalty_window_over_prompt_and_answer(last_n: int, token: int) -> None:
    s = sampler(n_vocab=3, temperature=0.0, presence_penalty=2.0, repeat_last_n=last_n)
    s.accept([0, 2])
    assert s.sample(np.array([2.0, 1.5, 0.0])).token == token


def test_own_tokens_join_the_history() -> None:
    s = sampler(n_vocab=3, temperature=0.0, presence_penalty=2.0)
    logits = np.array([2.0, 1.5, 1.0])
    assert [s.sample(logits).token for _ in range(4)] == [0, 1, 2, 0]
    assert s.history == [0, 1, 2, 0]


def test_dry_stops_a_loop() -> None:
    s = sampler(n_vocab=4, temperature=0.0, dry_multiplier=1.0, dry_base=2.0)
    s.accept([0, 1, 2, 0, 1])
    assert s.sample(np.array([0.0, 0.0, 0.5, 0.1])).token == 3  # 2 would repeat "0 1 2"


def test_mirostat_uses_only_temperature_and_moves_mu() -> None:
    # 2 bits for each of four tokens; mu starts at 2 * tau = 3, so all stay
    s = sampler(n_vocab=4, mirostat=2, mirostat_tau=1.5, mirostat_eta=0.2, top_k=1, seed=1, repeat_penalty=9.0)
    s.accept([0, 0])
    ids, _ = s.candidates(np.zeros(4, np.float32))
    assert ids.tolist() == [0, 1, 2, 3]
    s.sample(np.zeros(4, np.float32))
    assert s.mu == pytest.approx(3 - 0.2 * (2 - 1.5))


def test_mirostat_at_temperature_zero_is_greedy() -> None:
    s = sampler(mirostat=1, temperature=0.0)
    assert [s.sample(logits_of(*PROBS)).token for _ in range(3)] == [0, 0, 0]


def test_ignore_eos_bans_every_end() -> None:
    s = sampler(temperature=0.0, eog=frozenset({0, 1}), ignore_eos=True)
    assert s.sample(logits_of(*PROBS)).token == 2


def test_short_cut_of_greedy_equals_the_chain() -> None:
    rng = np.random.default_rng(4)
    for _ in range(30):
        logits = np.round(rng.standard_normal(50) * 3).astype(np.float32)  # many ties
        options: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.3, "dry_multiplier": 0.8}
        s = sampler(n_vocab=50, **options)
        s.accept(rng.integers(0, 50, 30).tolist())
        assert s.candidates(logits)[0].tolist() == [s.sample(logits).token]


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}, {"mirostat": 2}])
@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([0.0, math.nan, 0.0], "NaN, first at token 1"),
        ([-INF, -INF, -INF], "no candidate"),
        ([0.0, 0.0, INF], r"\+inf, first at token 2"),
        ([0.0, 0.0], r"shape \(2,\), the vocabulary has 3"),
        ([[0.0, 0.0, 0.0]], r"shape \(1, 3\)"),
    ],
)
def test_logits_without_sense(options: dict[str, Any], logits: list[float], message: str) -> None:
    s = sampler(n_vocab=3, **options)
    with pytest.raises(RefEngineError, match=message):
        s.sample(np.array(logits))
    assert s.history == []


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}, {"mirostat": 1}])
def test_everything_banned(options: dict[str, Any]) -> None:
    s = sampler(n_vocab=2, logit_bias={0: -INF, 1: -INF}, **options)
    with pytest.raises(RefEngineError, match="leave no token"):
        s.sample(np.zeros(2))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bias_beyond_float32(temperature: float) -> None:
    with pytest.raises(RefEngineError, match="beyond the range"):
        sampler(n_vocab=2, temperature=temperature, logit_bias={0: 3e38}).sample(np.array([3e38, 0.0]))


def test_ids_outside_the_vocabulary() -> None:
    with pytest.raises(RefEngineError, match="token 5 is not below 5"):
        sampler(logit_bias={5: 1.0})
    s = sampler()
    with pytest.raises(RefEngineError, match="token 5 is outside"):
        s.accept([1, 5])
    with pytest.raises(RefEngineError, match="token -1 is outside"):
        s.accept([-1])
    assert s.history == []
