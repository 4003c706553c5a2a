"""Golden data of sampling: what llama.cpp's samplers leave of given logits.

    python golden/make/sampling.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--out golden/sampling]

Random choices are taken out: XTC runs with probability 0 or 1; mirostat is followed for a dozen tokens, and
the token that it drew is recorded with the candidates, so that whoever follows the same path must see the
same candidates.
The model is needed for its vocabulary only (sequence breakers of DRY are strings).
"""

from __future__ import annotations

import argparse
import ctypes
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as capi
from llamacpp import producer

Logits = npt.NDArray[np.float32]
Left = dict[int, float]  # token id -> logit after the sampler, without those at -inf

VALUE_FILTERS = {"temperature", "dynamic_temperature", "penalties"}  # the others only remove
BREAKER_TEXT = """* one — the first item of the list: "it is so"
* two, the second item of the list

* at the end of the day; that is all
"""
REPEATED = BREAKER_TEXT + BREAKER_TEXT[:-8]  # the longest repetition is as long as the breakers let it be


def draw(rng: np.random.Generator, n: int, scale: float) -> Logits:
    """n different logits on a grid of 0.001, so that no two tie and their decimal text is exact."""
    grid = rng.choice(np.arange(-6000, 6001), size=n, replace=False) * (scale / 6)
    return np.round(grid / 1000, 6).astype(np.float32)


def apply(samplers: Sequence[Any], logits: Logits) -> tuple[Left, int, float]:
    """What the samplers leave, one after the other, and the token chosen with its probability (if one is)."""
    data = (capi.llama_token_data * logits.size)()
    for i, value in enumerate(logits):
        data[i] = capi.llama_token_data(i, float(value), 0.0)
    first = ctypes.cast(data, ctypes.POINTER(capi.llama_token_data))
    array = capi.llama_token_data_array(first, logits.size, -1, False)
    for sampler in samplers:
        capi.llama_sampler_apply(sampler, ctypes.byref(array))
    left = [array.data[i] for i in range(array.size)]
    chosen = left[array.selected] if array.selected >= 0 else left[0]
    return {t.id: t.logit for t in left if t.logit != -np.inf}, chosen.id, chosen.p


def build(name: str, args: dict[str, Any]) -> Any:
    """The sampler called `name`; args have the names that ref_engine.sample's functions give them."""
    keep = args.get("min_keep", 0)
    match name:
        case "top_k":
            return capi.llama_sampler_init_top_k(args["k"])
        case "top_p":
            return capi.llama_sampler_init_top_p(args["p"], keep)
        case "min_p":
            return capi.llama_sampler_init_min_p(args["p"], keep)
        case "typical":
            return capi.llama_sampler_init_typical(args["p"], keep)
        case "top_n_sigma":
            return capi.llama_sampler_init_top_n_sigma(args["n"])
        case "xtc":
            return capi.llama_sampler_init_xtc(args["probability"], args["threshold"], keep, 1)
        case "temperature":
            return capi.llama_sampler_init_temp(args["t"])
        case "dynamic_temperature":
            return capi.llama_sampler_init_temp_ext(args["t"], args["spread"], args["exponent"])
        case "penalties":
            last, n_vocab = args["last_tokens"], 1000
            sampler = capi.llama_sampler_init_penalties(
                n_vocab, len(last), args["repeat"], args["frequency"], args["presence"]
            )
            return accept(sampler, last)
        case _:
            raise ValueError(name)


def accept(sampler: Any, tokens: Sequence[int]) -> Any:
    for token in tokens:
        capi.llama_sampler_accept(sampler, token)
    return sampler


def filter_arguments(history: list[int]) -> list[tuple[str, dict[str, Any]]]:
    """Each filter with ordinary, border and switched-off values."""
    cases: list[tuple[str, dict[str, Any]]] = []
    cases += [("top_k", {"k": k}) for k in (-1, 0, 1, 2, 40, 129, 5000)]
    for keep in (0, 9):
        cases += [("top_p", {"p": p, "min_keep": keep}) for p in (0.0, 0.05, 0.5, 0.9, 0.95, 0.999, 1.0)]
        cases += [("min_p", {"p": p, "min_keep": keep}) for p in (0.0, 0.01, 0.05, 0.3, 0.9, 1.0)]
        cases += [("typical", {"p": p, "min_keep": keep}) for p in (0.05, 0.2, 0.5, 0.9, 0.99, 1.0)]
    cases += [("top_n_sigma", {"n": n}) for n in (-1.0, 0.0, 0.1, 0.5, 1.0, 1.5, 3.0)]
    cases += [
        ("xtc", {"probability": p, "threshold": t, "min_keep": n})
        for p, t in ((0.0, 0.1), (1.0, 0.004), (1.0, 0.01), (1.0, 0.05), (1.0, 0.1), (1.0, 0.3), (1.0, 0.51))
        for n in (0, 195)
    ]
    cases += [("temperature", {"t": t}) for t in (-1.0, 0.0, 0.1, 0.8, 3.0)]
    cases += [
        ("dynamic_temperature", {"t": t, "spread": s, "exponent": e})
        for t, s, e in ((0.8, 0.0, 1.0), (0.8, 0.5, 1.0), (0.8, 0.5, 3.0), (0.5, 2.0, 0.5), (0.0, 1.5, 1.0))
    ]
    cases += [
        ("penalties", {"last_tokens": history[-n:], "repeat": r, "frequency": f, "presence": p})
        for n, r, f, p in ((64, 1.1, 0.0, 0.0), (64, 0.7, 0.0, 0.0), (64, 1.0, 0.3, 0.0), (64, 1.0, 0.0, 0.6),
                           (64, 1.3, -0.2, 0.5), (5, 1.5, 0.1, 0.2), (64, 1.0, 0.0, 0.0))
    ]  # fmt: skip
    return cases


def filters(rng: np.random.Generator) -> dict[str, Any]:
    logits = {"flat": draw(rng, 200, 1.5), "usual": draw(rng, 200, 8.0), "peaked": draw(rng, 200, 30.0),
              "large": draw(rng, 2000, 5.0)}  # fmt: skip
    history = [int(t) for t in rng.integers(0, 40, 64)]
    cases = []
    for which, values in logits.items():
        for name, args in filter_arguments(history):
            if which == "large" and name not in ("top_p", "typical", "min_p", "top_k"):
                continue
            left, _, _ = apply([build(name, args)], values)
            case: dict[str, Any] = {"filter": name, "args": args, "logits": which, "left": packed(left)}
            if name in VALUE_FILTERS:
                case["values"] = [round_trip(left[i]) for i in sorted(left)]
            cases.append(case)
    return {"logits": {name: decimals(values) for name, values in logits.items()}, "cases": cases}


def round_trip(value: float) -> float:
    """The shortest decimal that reads back as the same float32."""
    return float(str(np.float32(value)))


def decimals(logits: Logits) -> list[float]:
    return [round_trip(value) for value in logits]


def packed(left: Left) -> str:
    """The ids as a hexadecimal number whose bit i is set for token i."""
    return format(sum(1 << token for token in left), "x")


def chains(rng: np.random.Generator) -> dict[str, Any]:
    """llama.cpp's default order of filters, each made from the options of one request."""
    history = [int(t) for t in rng.integers(0, 30, 40)]
    logits = {"usual": draw(rng, 200, 8.0), "flat": draw(rng, 200, 2.0)}
    requests: list[dict[str, Any]] = [
        {},
        {"temperature": 1.5, "top_k": 0, "top_p": 0.9, "repeat_penalty": 1.2, "repeat_last_n": 20},
        {"top_k": 100, "typical_p": 0.7, "top_p": 0.9, "min_keep": 5},
        {"top_k": 60, "xtc_probability": 1.0, "xtc_threshold": 0.02, "min_p": 0.001},
        {"dry_multiplier": 0.8, "dry_allowed_length": 1, "top_k": 200, "frequency_penalty": 0.1},
        {"temperature": 0.9, "dynatemp_range": 0.4, "dynatemp_exponent": 1.3, "presence_penalty": 0.4},
        {"top_n_sigma": 1.2, "top_k": 20, "min_p": 0.0, "top_p": 0.99},
        {"temperature": 0.0, "repeat_penalty": 1.3},
    ]
    cases = []
    for which, values in logits.items():
        for request in requests:
            left, _, _ = apply(chain_samplers(request, history), values)
            kept = {i: round_trip(left[i]) for i in sorted(left)}
            cases.append({"options": request, "logits": which, "left": kept})
    return {"history": history, "logits": {n: decimals(v) for n, v in logits.items()}, "cases": cases}


def chain_samplers(o: dict[str, Any], history: list[int]) -> list[Any]:
    keep, temperature = o.get("min_keep", 0), o.get("temperature", 0.8)
    last_n, repeat = o.get("repeat_last_n", 64), o.get("repeat_penalty", 1.0)
    frequency, presence = o.get("frequency_penalty", 0.0), o.get("presence_penalty", 0.0)
    dry = dry_sampler(None, o.get("dry_multiplier", 0.0), 1.75, o.get("dry_allowed_length", 2), 64, [])
    return [
        accept(capi.llama_sampler_init_penalties(1000, last_n, repeat, frequency, presence), history),
        accept(dry, history),
        capi.llama_sampler_init_top_n_sigma(o.get("top_n_sigma", -1.0)),
        capi.llama_sampler_init_top_k(o.get("top_k", 40)),
        capi.llama_sampler_init_typical(o.get("typical_p", 1.0), keep),
        capi.llama_sampler_init_top_p(o.get("top_p", 0.95), keep),
        capi.llama_sampler_init_min_p(o.get("min_p", 0.05), keep),
        capi.llama_sampler_init_xtc(o.get("xtc_probability", 0.0), o.get("xtc_threshold", 0.1), keep, 1),
        capi.llama_sampler_init_temp_ext(temperature, o.get("dynatemp_range", 0.0), o.get("dynatemp_exponent", 1.0)),
    ]


def mirostat(rng: np.random.Generator) -> dict[str, Any]:
    n_vocab, steps, paths = 150, 12, []
    settings = ((1, 3.0, 0.3, 9.0), (1, 2.0, 0.5, 6.0), (2, 3.0, 0.3, 9.0), (2, 2.0, 0.4, 6.0))
    for version, tau, eta, scale in settings:
        if version == 1:
            sampler = capi.llama_sampler_init_mirostat(n_vocab, 7, tau, eta, 100)
        else:
            sampler = capi.llama_sampler_init_mirostat_v2(7, tau, eta)
        path = []
        for _ in range(steps):
            logits = draw(rng, n_vocab, scale)
            left, token, p = apply([sampler], logits)
            path.append({"logits": decimals(logits), "n_left": len(left), "token": token,
                         "p": round_trip(p)})  # fmt: skip
        paths.append({"version": version, "tau": tau, "eta": eta, "path": path})
    return {"n_vocab": n_vocab, "paths": paths}


def dry_sampler(vocab: Any, multiplier: float, base: float, allowed: int, last_n: int, breakers: list[str]) -> Any:
    strings = (ctypes.c_char_p * max(1, len(breakers)))(*[b.encode() for b in breakers])
    return capi.llama_sampler_init_dry(vocab, multiplier, base, allowed, last_n, strings, len(breakers))


def dry(rng: np.random.Generator, model: Path) -> dict[str, Any]:
    """Penalties that DRY gives: on random ids without breakers, on a text with several sets of breakers."""
    params = capi.llama_model_default_params()
    params.vocab_only = True
    loaded = capi.llama_model_load_from_file(str(model).encode(), params)
    vocab = capi.llama_model_get_vocab(loaded)
    cases: list[dict[str, Any]] = []
    for n_ids, n in ((2, 60), (3, 80), (6, 90), (1, 70)):
        history = [int(t) for t in rng.integers(0, n_ids, n)]
        for setting in ((0.8, 1.75, 2, 64), (1.0, 1.1, 0, 90), (0.5, 1.0, 3, 30), (2.0, 3.0, 1, 30)):
            sampler = accept(dry_sampler(vocab, *setting, []), history)
            cases.append(dry_case(sampler, history, [], n_ids + 3, setting))
    text_ids = tokenize(vocab, REPEATED)
    setting = (1.0, 1.5, 1, 400)
    for breakers in (["\n", ":", '"', "*"], ["*"], ['"'], ["\n\n"], ["end of the day"], [" item of"], ["zzz"],
                     ["day", "of the list"], ["list: \"it"], ["—"], ["d item"]):  # fmt: skip
        sampler = accept(dry_sampler(vocab, *setting, breakers), text_ids)
        cases.append(dry_case(sampler, text_ids, breakers, capi.llama_vocab_n_tokens(vocab), setting))
    rests = sorted({b.encode()[i:] for c in cases for b in c["breakers"] for i in range(1, len(b.encode()))})
    return {
        "cases": cases,
        "pieces": {t: piece(vocab, t).hex() for t in sorted(set(text_ids))},
        "encode": {r.decode(): tokenize(vocab, r.decode()) for r in rests if is_text(r)},
    }


Setting = tuple[float, float, int, int]  # multiplier, base, allowed length, last n


def dry_case(sampler: Any, history: list[int], breakers: list[str], n_vocab: int, setting: Setting) -> dict[str, Any]:
    multiplier, base, allowed, last_n = setting
    left, _, _ = apply([sampler], np.zeros(n_vocab, dtype=np.float32))
    args = {"multiplier": multiplier, "base": base, "allowed_length": allowed}
    lowered = {i: round_trip(v) for i, v in sorted(left.items()) if v != 0}
    return {"last_tokens": history[-last_n:], "args": args, "breakers": breakers, "n_vocab": n_vocab,
            "lowered": lowered}  # fmt: skip


def tokenize(vocab: Any, text: str) -> list[int]:
    raw = text.encode()
    ids = (capi.llama_token * (len(raw) + 8))()
    n = capi.llama_tokenize(vocab, raw, len(raw), ids, len(ids), False, False)
    return list(ids[:n])


def piece(vocab: Any, token: int) -> bytes:
    buffer = ctypes.create_string_buffer(256)
    length = capi.llama_token_to_piece(vocab, token, buffer, 256, 0, True)
    return buffer.raw[:length]


def is_text(raw: bytes) -> bool:
    return raw.decode(errors="ignore").encode() == raw


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of sampling from llama.cpp's samplers")
    parser.add_argument("--model", type=Path, required=True, help="SmolLM2-135M-Instruct, for its vocabulary")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "sampling")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    data = {"filters": filters(rng), "chains": chains(rng), "mirostat": mirostat(rng)}
    data["dry"] = dry(rng, args.model)
    note = "which candidates are left: exact; their logits: within the relative tolerance"
    files = {}
    for name, content in data.items():
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        (args.out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        files[f"{name}.json"] = {"seed": args.seed, "tolerance": {"relative": 1e-5}, "note": note}
    program, version = producer()
    facts = {"made_by": "golden/make/sampling.py", "producer": program, "version": version, "files": files}
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
