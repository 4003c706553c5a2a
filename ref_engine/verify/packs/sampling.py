"""golden/sampling: what llama.cpp's samplers leave of drawn logits. These do not depend on a backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ref_engine import sample
from ref_engine.sample import Sampler, SamplingParams, VocabInfo, dry, dry_breakers, mirostat_mu, softmax
from ref_engine.verify.case import Array, Case, Finding, failed
from ref_engine.verify.golden import Golden

_FILTERS: dict[str, Callable[..., sample.Logits]] = {
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


def cases(golden: Golden) -> list[Case]:
    filters, chains = golden.json("sampling/filters.json"), golden.json("sampling/chains.json")
    mirostat, drys = golden.json("sampling/mirostat.json"), golden.json("sampling/dry.json")
    limit = golden.tolerance("sampling/filters.json", "relative")
    found = []
    for name in dict.fromkeys(case["filter"] for case in filters["cases"]):
        found.append(_case(f"filters/{name}", partial(_filter, name, filters, limit)))
    for i, chain in enumerate(chains["cases"]):
        id = f"chains/{i:02}-{'-'.join(chain['options'])}"
        found.append(_case(id, partial(_chain, chain, chains, limit)))
    for path in mirostat["paths"]:
        found.append(_case(f"mirostat/v{path['version']}-tau{path['tau']:g}", partial(_mirostat, path, limit)))
    for i, entry in enumerate(drys["cases"]):
        found.append(_case(f"dry/{i:02}", partial(_dry, entry, drys, limit)))
    return found


def _case(id: str, run: Callable[[], Finding]) -> Case:
    return Case(f"sampling/{id}", id.split("/")[0].rstrip("s"), "", run)


def _left(ids: list[int], want: list[int], values: Array, wanted: Array, limit: float, what: object) -> Finding | None:
    """None where the same candidates are left with the same values."""
    if ids != want:
        extra, missing = sorted(set(ids) - set(want)), sorted(set(want) - set(ids))
        return failed(
            f"{what}: {len(ids)} candidates left, expected {len(want)}; {extra[:5]} too many, {missing[:5]} gone"
        )
    off = np.abs(values - wanted) > limit * np.abs(wanted)
    if off.any():
        i = int(off.argmax())
        return failed(f"{what}: candidate {want[i]} has {values[i]:.8g}, expected {wanted[i]:.8g}")
    return None


def _passed(n: int, limit: float) -> Finding:
    return Finding(True, f"{n} comparisons", f"the same candidates, values within {limit:g}", {"comparisons": float(n)})


def _filter(name: str, data: Mapping[str, Any], limit: float) -> Finding:
    chosen = [case for case in data["cases"] if case["filter"] == name]
    if name not in _FILTERS:
        return failed(f"no filter is named {name}")
    for case in chosen:
        logits = np.array(data["logits"][case["logits"]], np.float32)
        after = _FILTERS[name](logits, **case["args"])
        bits = int(case["left"], 16)
        want = [i for i in range(logits.size) if bits >> i & 1]
        values = np.array(case.get("values", logits[want]), np.float32)
        ids = np.flatnonzero(after > -np.inf).tolist()
        wrong = _left(ids, want, after[want], values, limit, case["args"])
        if wrong is not None:
            return wrong
    return _passed(len(chosen), limit)


def _chain(case: Mapping[str, Any], data: Mapping[str, Any], limit: float) -> Finding:
    logits = np.array(data["logits"][case["logits"]], np.float32)
    options = {"dry_sequence_breakers": ["unused"], **case["options"]}
    sampler = Sampler(SamplingParams.from_options(options), VocabInfo(logits.size))
    sampler.accept(data["history"])
    want = [int(id) for id in case["left"]]
    if case["options"].get("temperature") == 0:
        token = sampler.sample(logits).token
        return _passed(1, limit) if token == want[0] else failed(f"token {token}, expected {want[0]}")
    ids, values = sampler.candidates(logits)
    wanted = np.array(list(case["left"].values()), np.float32)
    return _left(ids.tolist(), want, values, wanted, limit, case["options"]) or _passed(1, limit)


def _mirostat(path: Mapping[str, Any], limit: float) -> Finding:
    """llama.cpp's own draws are given; its candidates then tell whether mu is the same at every step."""
    mu = 2 * path["tau"]
    for i, step in enumerate(path["path"]):
        logits = np.array(step["logits"], np.float32)
        if path["version"] == 1:
            left = sample.mirostat_v1(logits, mu, n_vocab=logits.size)
        else:
            left = sample.mirostat_v2(logits, mu)
        n, p = int((left > -np.inf).sum()), float(softmax(left)[step["token"]])
        if n != step["n_left"]:
            return failed(f"step {i}: {n} candidates left, expected {step['n_left']}")
        if abs(p - step["p"]) > limit * step["p"]:
            return failed(f"step {i}: the token drawn has probability {p:.8g}, expected {step['p']:.8g}")
        mu = mirostat_mu(mu, p, path["tau"], path["eta"])
    return _passed(len(path["path"]), limit)


def _dry(case: Mapping[str, Any], data: Mapping[str, Any], limit: float) -> Finding:
    pieces = [b""] * case["n_vocab"]
    for token, piece in data["pieces"].items():
        if int(token) < len(pieces):
            pieces[int(token)] = bytes.fromhex(piece)
    breakers = dry_breakers(case["breakers"], pieces, lambda text: data["encode"].get(text, []))
    after = dry(np.zeros(case["n_vocab"], np.float32), case["last_tokens"], **case["args"], breakers=breakers)
    want = {int(id): value for id, value in case["lowered"].items()}
    ids = np.flatnonzero(after).tolist()
    wanted = np.array([want[id] for id in sorted(want)], np.float32)
    return _left(ids, sorted(want), after[sorted(want)], wanted, limit, "lowered") or _passed(1, limit)
