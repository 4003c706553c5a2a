"""Options are checked when they are set: one line that names the field."""

import dataclasses
import math

import pytest

from ref_engine.errors import RefEngineError
from ref_engine.sample import GREEDY, SamplingParams

BAD = [
    ("temperature", [math.nan, math.inf, "1", None, True]),
    ("dynatemp_range", [-0.1, math.inf]),
    ("dynatemp_exponent", [-1.0]),
    ("top_k", [-2, 2**31, 1.5, True]),
    ("top_p", [-0.01, 1.01, math.nan]),
    ("min_p", [-0.01, 1.01]),
    ("typical_p", [-0.01, 1.01]),
    ("top_n_sigma", [-2.0, math.nan]),
    ("xtc_probability", [-0.1, 1.1]),
    ("xtc_threshold", [-0.1, 1.1]),
    ("min_keep", [-1, 0.5]),
    ("repeat_last_n", [-2, 1.0]),
    ("repeat_penalty", [0.0, -1.0, math.inf, 1e-45]),
    ("frequency_penalty", [math.inf, 1e39]),
    ("presence_penalty", [math.nan]),
    ("dry_multiplier", [-0.5, math.inf]),
    ("dry_base", [-1.0]),
    ("dry_allowed_length", [-1, 2.5]),
    ("dry_penalty_last_n", [-2]),
    ("dry_sequence_breakers", ["\n", [""], [1], None]),
    ("mirostat", [-1, 3, 1.0]),
    ("mirostat_tau", [-1.0]),
    ("mirostat_eta", [-0.1]),
    ("logit_bias", [[1], {-1: 0.0}, {"1": 0.0}, {True: 0.0}, {1: math.inf}, {1: math.nan}, {1: "x"}]),
    ("ignore_eos", [1, "yes"]),
    ("seed", [-2, 2**64, 1.0, True]),
    ("samplers", [["top_q"], ["top_k", "top_k"], "top_k"]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD for value in values])
def test_bad_value_is_one_line_that_names_the_field(name: str, value: object) -> None:
    with pytest.raises(RefEngineError) as caught:
        SamplingParams.from_options({name: value})
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_every_field_has_a_bad_value_above() -> None:
    assert {name for name, _ in BAD} == {f.name for f in dataclasses.fields(SamplingParams)}


def test_unknown_option() -> None:
    with pytest.raises(RefEngineError, match="'top_q'"):
        SamplingParams.from_options({"top_q": 1})


def test_options_as_a_request_gives_them() -> None:
    params = SamplingParams.from_options(
        {
            "temperature": 0,
            "top_k": -1,
            "seed": None,
            "dry_sequence_breakers": ["x"],
            "logit_bias": {3: -math.inf},
        }
    )
    assert params.dry_sequence_breakers == ("x",)
    assert dict(params.logit_bias) == {3: -math.inf}


def test_params_do_not_change() -> None:
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias)
    bias[1] = 3.0
    assert params.logit_bias[1] == 2.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_k = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        params.logit_bias[1] = 0.0  # type: ignore[index]


def test_defaults_are_those_of_llama_cpps_server() -> None:
    """struct common_params_sampling in common/common.h of llama.cpp."""
    p = SamplingParams()
    assert (p.temperature, p.top_k, p.top_p, p.min_p, p.typical_p) == (0.8, 40, 0.95, 0.05, 1.0)
    assert (p.repeat_last_n, p.repeat_penalty, p.frequency_penalty, p.presence_penalty) == (64, 1.0, 0.0, 0.0)
    assert (p.dry_multiplier, p.dry_base, p.dry_allowed_length, p.dry_penalty_last_n) == (0.0, 1.75, 2, 64)
    assert (p.mirostat, p.mirostat_tau, p.mirostat_eta) == (0, 5.0, 0.1)
    assert (p.xtc_probability, p.xtc_threshold, p.top_n_sigma, p.min_keep) == (0.0, 0.1, -1.0, 0)
    assert (p.dynatemp_range, p.dynatemp_exponent) == (0.0, 1.0)
    assert p.dry_sequence_breakers == ("\n", ":", '"', "*")


@pytest.mark.parametrize(
    ("change", "greedy"),
    [
        ({}, True),
        ({"temperature": -1.0}, True),
        ({"temperature": 0.1}, False),
        ({"typical_p": 0.9}, False),
        ({"xtc_probability": 0.5}, False),
        ({"dynatemp_range": 0.5}, False),
        ({"mirostat": 1}, False),
        ({"samplers": ("top_k",)}, False),
        ({"samplers": ("dry", "penalties", "temperature")}, True),
        ({"samplers": ("top_k", "penalties", "temperature")}, False),
        ({"samplers": ("temperature",), "xtc_probability": 0.5}, True),
    ],
)
def test_greedy_says_whether_the_short_cut_is_right(change: dict[str, object], greedy: bool) -> None:
    assert SamplingParams.from_options({"temperature": 0.0, **change}).greedy is greedy
    assert GREEDY.greedy
