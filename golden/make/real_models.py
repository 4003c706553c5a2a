"""Golden data of real models from llama.cpp: logits, greedy text, perplexity and a chat answer.

    python golden/make/real_models.py --model smollm2=FILE.gguf --f32 smollm2=F32.gguf ... [--out golden/real]

Each model runs twice. "f32": the same weights dequantised to float32 (the file is written if it is not there),
float32 cache, no flash attention; this is the truth. "quantised": the file as it is, float16 cache, no flash
attention, weights not repacked.

NAME.npz   columns (C,): a seeded choice of vocabulary entries; per mode and prompt, MODE/PROMPT/...
           ids (T,), logits (T, C), logsumexp (T,), top_ids (T, 10), top_logits (T, 10); page_ids (N,)
NAME.json  prompts, continuations, chat, perplexity, sha256 of the model file

Perplexity is exp(mean of -log p(ids[i] | ids[:i]) for i = 1 .. n-1) over one context, ids being what the tokenizer
gives with its own special tokens (a leading BOS where the model wants one): the first id, whatever it is, is given.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import jinja2
import numpy as np
import numpy.typing as npt
from llamacpp import FloatArray, LlamaCpp, producer

Double = npt.NDArray[np.float64]
PROMPTS = {
    "prose": "The old clock in the hall had stopped at ten past four, and nobody in the house could say when. "
    "My grandmother believed that it would start again by itself,",
    "code": 'def moving_average(values, width):\n    """Mean of every window of `width` values."""\n'
    "    total = sum(values[:width])\n    yield total / width\n    for old, new in zip(values,",
    "mixed": "Grüße aus Zürich! Привет, мир: 3.14 ≈ π. 你好，世界。こんにちは 🌍 naïve café — εἰρήνη",
    "capital": "The capital of France is",
}
QUESTION = "What is the capital of France?"
N_COLUMNS = {"f32": 2048, "quantised": 512}
N_GREEDY, N_CHAT, N_TOP, N_CTX = 32, 64, 10, 2048
# No repacking: it brings in AMX kernels where the CPU has them (golden/README.md says what goes wrong there).
MODES: dict[str, dict[str, Any]] = {"f32": {"kv": "f32"}, "quantised": {"kv": "f16"}}
# settings that leave the mathematics alone: what llama.cpp changes by is its own spread
OTHER: dict[str, dict[str, dict[str, Any]]] = {
    "f32": {"one token per batch": {"n_batch": 1}},
    "quantised": {
        "one token per batch": {"n_batch": 1},
        "seven tokens per graph": {"n_ubatch": 7},
        "float32 cache": {"kv": "f32"},
        "flash attention": {"flash": True},
    },
}
LIMITS = {
    "smollm2": {"f32_nmse": 1e-9, "quantised_median_nmse": 2e-3, "perplexity_relative": 0.01},
    "gemma3": {"f32_nmse": 1e-6, "quantised_median_nmse": 2e-3, "perplexity_relative": 0.01},
}


def write_f32(source: Path, target: Path) -> None:
    """The same model with every tensor dequantised to float32 by the gguf package."""
    reader = gguf.GGUFReader(str(source))
    arch = reader.fields["general.architecture"].contents()
    partial = target.with_suffix(".part")
    writer = gguf.GGUFWriter(str(partial), arch)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = 0 if key == "general.file_type" else field.contents()
        sub_type = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(key, value, field.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        shape = tuple(int(d) for d in reversed(tensor.shape))
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), int(np.prod(shape)) * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        writer.write_tensor_data(gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.close()
    partial.replace(target)


def chat_prompt(path: Path) -> str:
    """The question through the file's own template."""
    template = gguf.GGUFReader(str(path)).fields["tokenizer.chat_template"].contents()
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    messages = [{"role": "user", "content": QUESTION}]
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True)


def logsumexp(logits: FloatArray) -> Double:
    x = logits.astype(np.float64)
    top = x.max(-1, keepdims=True)
    return np.log(np.exp(x - top).sum(-1)) + top[..., 0]


def row_nmse(a: FloatArray, b: FloatArray) -> Double:
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    return ((a64 - b64) ** 2).sum(-1) / (b64**2).sum(-1)


def distance(rows: list[FloatArray], truth: list[FloatArray]) -> dict[str, float]:
    """How far logits are from others over all positions of all prompts."""
    a, b = np.concatenate(rows), np.concatenate(truth)
    error = row_nmse(a, b)
    agree = float((a.argmax(-1) == b.argmax(-1)).mean())
    return {"median_nmse": float(np.median(error)), "max_nmse": float(error.max()), "top1_agreement": agree}


def perplexity(model: LlamaCpp, ids: Sequence[int]) -> float:
    total, wanted = 0.0, np.array([*ids[1:], 0])
    for start, logits in model.chunks(ids):
        rows = logits[: len(ids) - 1 - start]
        picked = rows[np.arange(len(rows)), wanted[start : start + len(rows)]].astype(np.float64)
        total += float((logsumexp(rows) - picked).sum())
    return float(np.exp(total / (len(ids) - 1)))


def summary(ids: list[int], logits: FloatArray, columns: npt.NDArray[np.int32]) -> dict[str, npt.NDArray[Any]]:
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :N_TOP].astype(np.int32)
    return {
        "ids": np.array(ids, np.int32),
        "logits": logits[:, columns],
        "logsumexp": logsumexp(logits),
        "top_ids": order,
        "top_logits": np.take_along_axis(logits, order, -1),
    }


def run_mode(path: Path, mode: str, page: str, chat: str | None) -> dict[str, Any]:
    """Everything of one model in one mode; the full logits are under "logits"."""
    settings = MODES[mode]
    out: dict[str, Any] = {"ids": {}, "logits": {}, "greedy": {}, "spread": {}, "perplexity": {}}

    def continuation(model: LlamaCpp, ids: list[int], n: int) -> dict[str, Any]:
        new = model.greedy(ids, n)
        return {"ids": ids, "new_ids": new, "text": model.detokenize(new).decode(errors="replace")}

    with LlamaCpp(path, n_ctx=N_CTX, n_threads=1, n_batch=128, **settings) as model:
        for name, text in PROMPTS.items():
            ids = model.tokenize(text)
            out["ids"][name], out["logits"][name] = ids, model.logits(ids)
            out["greedy"][name] = continuation(model, ids, N_GREEDY)
        page_ids = model.tokenize(page)
        out["perplexity"]["batch of 128"] = perplexity(model, page_ids)
        if chat is not None:
            out["chat"] = {
                "prompt": chat,
                **continuation(model, model.tokenize(chat, add_special=False), N_CHAT),
            }
    out["page_ids"] = page_ids
    for label, change in OTHER[mode].items():
        with LlamaCpp(path, n_ctx=N_CTX, n_threads=1, **{"n_batch": 128, **settings, **change}) as model:
            rows = [model.logits(ids) for ids in out["ids"].values()]
            out["spread"][label] = distance(rows, list(out["logits"].values()))
            if mode == "quantised":
                out["perplexity"][label] = perplexity(model, page_ids)
    return out


def make(name: str, path: Path, f32: Path, out: Path, seed: int) -> dict[str, Any]:
    """Write NAME.npz and NAME.json; return the measured facts for the manifest."""
    if not f32.exists():
        write_f32(path, f32)
    page = (out / "page.txt").read_text(encoding="utf-8")
    chat = chat_prompt(path) if name == "smollm2" else None
    runs = {mode: run_mode(p, mode, page, chat) for mode, p in (("f32", f32), ("quantised", path))}
    arrays: dict[str, npt.NDArray[Any]] = {"page_ids": np.array(runs["f32"]["page_ids"], np.int32)}
    for mode, run in runs.items():
        n_vocab = next(iter(run["logits"].values())).shape[1]
        columns = np.sort(np.random.RandomState(seed).permutation(n_vocab)[: N_COLUMNS[mode]]).astype(np.int32)
        arrays[f"{mode}/columns"] = columns
        for prompt, logits in run["logits"].items():
            found = summary(run["ids"][prompt], logits, columns)
            arrays |= {f"{mode}/{prompt}/{key}": value for key, value in found.items()}
    np.savez_compressed(out / f"{name}.npz", **arrays)
    kept = ("greedy", "chat", "perplexity")
    facts = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "prompts": PROMPTS,
        **{mode: {key: run[key] for key in kept if key in run} for mode, run in runs.items()},
    }
    (out / f"{name}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    pair = [list(run["logits"].values()) for run in runs.values()]
    return {
        **{f"own spread, {mode}, {k}": v for mode, run in runs.items() for k, v in run["spread"].items()},
        "quantised from f32": distance(pair[1], pair[0]),
        **{f"perplexity, {mode}": run["perplexity"] for mode, run in runs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of real models from llama.cpp")
    parser.add_argument("--model", action="append", required=True, metavar="NAME=GGUF")
    parser.add_argument("--f32", action="append", required=True, metavar="NAME=GGUF", help="written if absent")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "real")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of vocabulary columns")
    args = parser.parse_args()
    f32 = dict(item.split("=", 1) for item in args.f32)
    producer_name, version = producer()
    facts_path = args.out / "facts.json"
    files: dict[str, Any] = json.loads(facts_path.read_text())["files"] if facts_path.exists() else {}
    files["page.txt"] = {"seed": None, "tolerance": "exact", "producer": "ref-engine", "version": "1",
                         "note": "a page of English written for this project"}  # fmt: skip
    for item in args.model:
        name, path = item.split("=", 1)
        measured = make(name, Path(path), Path(f32[name]), args.out, args.seed)
        print(name, json.dumps(measured, indent=1))
        files[f"{name}.npz"] = {"seed": args.seed, "tolerance": LIMITS[name], "measured": measured}
        files[f"{name}.json"] = {"seed": args.seed, "tolerance": LIMITS[name]}
    facts = {
        "made_by": "golden/make/real_models.py",
        "producer": producer_name,
        "version": version,
        "files": files,
    }
    facts_path.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
