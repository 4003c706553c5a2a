"""The filters against llama.cpp's samplers on drawn logits (golden/make/sampling.py)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ref_engine import sample
from ref_engine.sample import Sampler, SamplingParams, VocabInfo, dry, dry_breakers, mirostat_mu, softmax

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "sampling"
FILTERS: dict[str, Callable[..., sample.Logits]] = {
    "top_k": sample.top_k,
    "top_p": sample.top_p,
    "min_p": sample.min_p,
    "typical": sample.typical,
    "top_n_sigma": sample.top_n_sigma,
    "temperature": sample.temperature,
    "dynamic_temperature": sample.dynamic_temperature,
    "penalties": sample.penalties,
    "xtc": lambda logits, **args: sample.xtc(logits, draw=0.999, **args),
}


def load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return data


def ids_left(logits: sample.Logits) -> list[int]:
    return np.flatnonzero(logits > -np.inf).tolist()


FILTER_DATA = load("filters")


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_filter_leaves_what_llama_cpp_leaves(name: str) -> None:
    cases = [case for case in FILTER_DATA["cases"] if case["filter"] == name]
    assert len(cases) >= 15
    for case in cases:
        logits = np.array(FILTER_DATA["logits"][case["logits"]], dtype=np.float32)
        left = FILTERS[name](logits, **case["args"])
        bits = int(case["left"], 16)
        ids = [i for i in range(logits.size) if bits >> i & 1]
        assert ids_left(left) == ids, case["args"]
        expected = case.get("values", logits[ids])  # only temperature and penalties change a value
        np.testing.assert_allclose(left[ids], np.array(expected, np.float32), rtol=1e-5, err_msg=str(case["args"]))


CHAIN_DATA = load("chains")


@pytest.mark.parametrize("case", CHAIN_DATA["cases"], ids=lambda c: f"{c['logits']}-{'-'.join(c['options'])}")
def test_chain_leaves_what_llama_cpps_chain_leaves(case: dict[str, Any]) -> None:
    logits = np.array(CHAIN_DATA["logits"][case["logits"]], dtype=np.float32)
    options = {"dry_sequence_breakers": ["unused"], **case["options"]}
    sampler = Sampler(SamplingParams.from_options(options), VocabInfo(logits.size))
    sampler.accept(CHAIN_DATA["history"])
    if case["options"].get("temperature") == 0:  # greedy takes a short cut
        assert str(sampler.sample(logits).token) == next(iter(case["left"]))
    ids, values = sampler.candidates(logits)
    if case["options"].get("temperature") != 0:
        assert ids.tolist() == [int(i) for i in case["left"]]
        np.testing.assert_allclose(values, np.array(list(case["left"].values()), np.float32), rtol=1e-5)


@pytest.mark.parametrize("path", load("mirostat")["paths"], ids=lambda p: f"v{p['version']}-tau{p['tau']}")
def test_mirostat_follows_llama_cpp(path: dict[str, Any]) -> None:
    """llama.cpp's own draws are given; its candidates then tell whether mu is the same at every step."""
    mu = 2 * path["tau"]
    for step in path["path"]:
        logits = np.array(step["logits"], dtype=np.float32)
        if path["version"] == 1:
            left = sample.mirostat_v1(logits, mu, n_vocab=logits.size)
        else:
            left = sample.mirostat_v2(logits, mu)
        assert len(ids_left(left)) == step["n_left"]
        probability = float(softmax(left)[step["token"]])
        assert probability == pytest.approx(step["p"], rel=1e-5)
        mu = mirostat_mu(mu, probability, path["tau"], path["eta"])
    counts = {step["n_left"] for step in path["path"]}
    assert len(counts) > 3, "a path on which nothing varies would show nothing"


DRY_DATA = load("dry")


@pytest.mark.parametrize("case", DRY_DATA["cases"], ids=lambda c: "-".join(c["breakers"]) or f"{c['args']}")
def test_dry_lowers_what_llama_cpp_lowers(case: dict[str, Any]) -> None:
    pieces = [b""] * case["n_vocab"]
    for token, piece in DRY_DATA["pieces"].items():
        if int(token) < len(pieces):
            pieces[int(token)] = bytes.fromhex(piece)
    breakers = dry_breakers(case["breakers"], pieces, lambda text: DRY_DATA["encode"].get(text, []))
    logits = np.zeros(case["n_vocab"], dtype=np.float32)
    after = dry(logits, case["last_tokens"], **case["args"], breakers=breakers)
    lowered = {str(i): after[i] for i in np.flatnonzero(after)}
    assert lowered == pytest.approx(case["lowered"], rel=1e-5)


def test_dry_goldens_tell_breakers_apart() -> None:
    results = [json.dumps(case["lowered"]) for case in DRY_DATA["cases"] if case["breakers"]]
    assert len(set(results)) >= 5
