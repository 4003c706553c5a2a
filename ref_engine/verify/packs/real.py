"""golden/real: models in use, from the cache, against llama.cpp.

Asked of a backend in float32, the logits are llama.cpp's on the same weights dequantised. Any other engine may round
activations, as llama.cpp does on the quantised file, where it differs from itself by a median NMSE of up to 1e-3 when
only the batch size changes: there the median row counts, and how often both put the same token first.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ref_engine.lens.measure import row_nmse
from ref_engine.library.catalog import CATALOG
from ref_engine.library.roots import cache_root
from ref_engine.perplexity import token_nlls
from ref_engine.reference.linear import Activations
from ref_engine.text.tokenizer import load_tokenizer
from ref_engine.verify.case import Array, Case, Finding, NotHere, failed
from ref_engine.verify.engines import LogitsEngine
from ref_engine.verify.engines.ours import Backend, OurEngine
from ref_engine.verify.golden import Golden

_WORST = 5  # times the limit of the 98th percentile, for the worst row


def cases(golden: Golden, engine: LogitsEngine) -> list[Case]:
    found = []
    for name in _names(golden):
        mode = f"/{engine.mode}" if isinstance(engine, OurEngine) else ""
        run = partial(_logits, golden, name, engine)
        found.append(Case(f"real/{name}/logits{mode}", "logits", mode.strip("/"), run))
    return found


def backend_cases(golden: Golden, backend: Backend, mode: Activations) -> list[Case]:
    found = []
    for name in _names(golden):
        perplexity = partial(_perplexity, golden, name, backend, mode)
        found.append(Case(f"real/{name}/perplexity/{mode}", "perplexity", mode, perplexity))
        if mode == "f32":
            found.append(Case(f"real/{name}/greedy/f32", "greedy", mode, partial(_greedy, golden, name, backend)))
    return found


def _names(golden: Golden) -> list[str]:
    return [PurePosixPath(file).stem for file in golden.names("real/*.npz")]


def _model(golden: Golden, name: str) -> Path:
    wanted = golden.json(f"real/{name}.json")["sha256"]
    for entry in CATALOG:
        path = cache_root() / "models" / entry.filename
        if entry.sha256 == wanted and path.is_file() and path.stat().st_size == entry.size:
            return path
    raise NotHere(f"{name} is not in {cache_root() / 'models'}; python -m ref_engine.library.assets fetches it")


def _logits(golden: Golden, name: str, engine: LogitsEngine) -> Finding:
    data, model, file = golden.npz(f"real/{name}.npz"), _model(golden, name), f"real/{name}.npz"
    kind = "f32" if engine.exact else "quantised"
    n_vocab = len(load_tokenizer(model).vocab.tokens)
    off: list[Array] = []
    same: list[Array] = []
    for key in (key for key in data if key.startswith(f"{kind}/") and key.endswith("/ids")):
        prompt = key.removesuffix("/ids")
        logits = engine.logits(model, [int(id) for id in data[key]], n_vocab, None)
        if not np.isfinite(logits).all():
            return failed(f"{prompt}: {int((~np.isfinite(logits)).sum())} logits are not finite")
        off.append(row_nmse(logits[:, data[f"{kind}/columns"]], data[f"{prompt}/logits"]))
        same.append(logits.argmax(-1) == data[f"{prompt}/top_ids"][:, 0])
    rows, top = np.concatenate(off), float(np.concatenate(same).mean())
    figures = {"median row's nmse": float(np.median(rows)), "worst row's nmse": float(rows.max()), "top1": top}
    if kind == "f32":
        limit = golden.tolerance(file, "f32_nmse")
        good = float(np.quantile(rows, 0.98)) <= limit and rows.max() <= _WORST * limit
        asked = f"nmse of 98 % of rows <= {limit:.3g}, of all <= {_WORST * limit:.3g}"
    else:
        limit, least = golden.tolerance(file, "quantised_median_nmse"), _own_agreement(golden, file)
        good = figures["median row's nmse"] <= limit and top >= least
        asked = f"median row's nmse <= {limit:.3g}, same top token in {least:.1%}"
    worst = int(rows.argmax())
    message = "" if good else f"worst row {worst}: nmse {rows[worst]:.3g}; same top token in {top:.1%}"
    return Finding(good, message, asked, figures, (worst,))


def _own_agreement(golden: Golden, file: str) -> float:
    """How often llama.cpp, on the quantised file, puts the same token first as itself run otherwise, at the least."""
    measured: dict[str, Any] = golden.files[file]["measured"]
    return min(
        float(spread["top1_agreement"]) for key, spread in measured.items() if key.startswith("own spread, quantised")
    )


def _perplexity(golden: Golden, name: str, backend: Backend, mode: Activations) -> Finding:
    """Of a page of a thousand tokens, against llama.cpp on the same file (q8) or its dequantised form (f32)."""
    kind = "f32" if mode == "f32" else "quantised"
    want = float(golden.json(f"real/{name}.json")[kind]["perplexity"]["batch of 128"])
    limit = golden.tolerance(f"real/{name}.npz", "perplexity_relative")
    model = backend.model(_model(golden, name), mode)
    ids = golden.npz(f"real/{name}.npz")["page_ids"].tolist()
    got = float(np.exp(np.concatenate(list(token_nlls(model, ids))).mean()))
    model.file.close()
    figures = {"perplexity": got, "expected": want}
    good = abs(got / want - 1) <= limit
    return Finding(good, "" if good else f"{got:.4f}, expected {want:.4f}", f"within {limit:.1%}", figures)


def _greedy(golden: Golden, name: str, backend: Backend) -> Finding:
    """The tokens of llama.cpp's greedy continuations in float32."""
    wanted, n = golden.json(f"real/{name}.json")["f32"]["greedy"], 0
    model = backend.model(_model(golden, name), "f32")
    for prompt, want in wanted.items():
        ids = want["new_ids"]
        got = [event.token for event in model.generate(want["ids"], max_tokens=len(ids), temperature=0)]
        at = next((i for i, (a, b) in enumerate(zip(got, ids, strict=False)) if a != b), None)
        if at is not None or len(got) != len(ids):
            return failed(f"{prompt}: token {at if at is not None else len(got)} of the continuation is another")
        n += len(ids)
    model.file.close()
    return Finding(True, f"{n} tokens", "the same tokens", {"tokens": float(n)})
