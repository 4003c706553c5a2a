"""The views of a computation as JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ref_engine.model import Model
from ref_engine.text.tokenizer import Tokenizer
from ref_engine.views import AttentionMaps, LayerRouting, LogitLens, MemoryPart, Norms, Ranked, Shape, Times, TokenView

from .incoming import MAX_NUMBERS, MAX_REPEAT, MAX_SCORES, MAX_SIZE, MAX_TOKENS

Json = dict[str, Any]
_DIGITS = 4  # behind the point, of probabilities, logarithms and weights


def number(x: float, digits: int = _DIGITS) -> float | None:
    """Rounded; null for what JSON has no number for."""
    return round(float(x), digits) if math.isfinite(x) else None


def token(tokenizer: Tokenizer, id: int) -> Json:
    """A token by id and text; `bytes` too where they are no whole characters."""
    raw = tokenizer.token_bytes(id) if id < tokenizer.n_vocab else b""  # files pad their matrices with unused rows
    text = raw.decode("utf-8", "replace")
    return {"id": id, "text": text} | ({"bytes": list(raw)} if text.encode() != raw else {})


def tokens_of(tokenizer: Tokenizer, ids: Iterable[int]) -> list[Json]:
    return [token(tokenizer, id) for id in ids]


def _top(tokenizer: Tokenizer, r: Ranked, i: int, probabilities: bool = False) -> list[Json]:
    """The likeliest tokens of row i, those that have any probability at all."""
    rows = []
    for id, logprob in zip(r.ids[i].tolist(), r.logprobs[i].tolist(), strict=True):
        if logprob > -math.inf:
            how = {"prob": number(math.exp(logprob))} if probabilities else {"logprob": number(logprob)}
            rows.append({**token(tokenizer, id), **how})
    return rows


def token_rows(model: str, tokenizer: Tokenizer, view: TokenView, start: int, stop: int) -> Json:
    """Each token with the distribution it was drawn from, and what may come next."""
    after, rows = view.after, []
    for t in range(start, stop):
        row = token(tokenizer, view.ids[t])
        if t == 0:
            rows.append({**row, "logprob": None, "rank": None, "entropy": None, "top": None})
            continue
        drawn = {"logprob": number(after.logprob[t - 1]), "rank": int(after.rank[t - 1])}
        rows.append({**row, **drawn, "entropy": number(after.entropy[t - 1]), "top": _top(tokenizer, after, t - 1)})
    last = stop - 1
    following = {"entropy": number(after.entropy[last]), "top": _top(tokenizer, after, last)}
    return {"model": model, "start": start, "tokens": rows, "next": following}


def lens_rows(tokenizer: Tokenizer, lens: LogitLens) -> Json:
    cells = [
        [
            {
                "top": _top(tokenizer, row, t, probabilities=True),
                "entropy": number(row.entropy[t]),
                "rank": int(row.rank[t]) or None,
            }
            for t in range(len(lens.ids))
        ]
        for row in lens.rows
    ]
    return {
        "start": lens.start,
        "layers": list(lens.layers),
        "tokens": tokens_of(tokenizer, lens.ids),
        "cells": cells,
    }


def attention_maps(tokenizer: Tokenizer, maps: AttentionMaps, shape: Shape, ids: Sequence[int]) -> Json:
    return {
        "layer": maps.layer,
        "layers_with_attention": list(shape.with_attention),
        "n_heads": shape.n_heads[maps.layer],
        "heads": list(maps.heads),
        "tokens": tokens_of(tokenizer, ids),
        "q": maps.queries.tolist(),
        "k": maps.keys.tolist(),
        "maps": maps.maps.astype(float).round(_DIGITS).tolist(),
        "downsampled": maps.downsampled,
        "how": "max",
        "sinks": maps.sinks,
    }


def routing(tokenizer: Tokenizer, layers: Sequence[LayerRouting], shape: Shape, ids: Sequence[int], start: int) -> Json:
    rows = [
        {
            "layer": r.layer,
            "n_experts": r.n_expert,
            "ids": r.ids.tolist(),
            "weights": r.weights.astype(float).round(_DIGITS).tolist(),
            "entropy": [number(x) for x in r.entropy.tolist()],
            "most_entropy": number(r.most_entropy),
            "load": r.load.tolist(),
            "shared": r.shared,
        }
        for r in layers
    ]
    return {
        "n_experts": max(shape.n_experts),
        "n_used": max(shape.n_used),
        "start": start,
        "layers": rows,
        "tokens": tokens_of(tokenizer, ids),
    }


def norm_rows(tokenizer: Tokenizer, norms: Norms, n_layers: int, ids: Sequence[int]) -> Json:
    values = {name: [[number(x, 6) for x in row] for row in norms.values[name].tolist()] for name in norms.names}
    return {
        "start": norms.start,
        "names": list(norms.names),
        "layers": list(range(n_layers)),
        "values": values,
        "tokens": tokens_of(tokenizer, ids),
    }


def time_rows(times: Times) -> Json:
    rows = [
        {
            "name": op.name,
            "tensors": op.tensors,
            "runs": op.runs,
            "calls": op.calls,
            "ms": number(op.seconds * 1e3),
            "share": number(op.seconds / times.seconds) if times.seconds else 0.0,
        }
        for op in times.operations
    ]
    return {
        "backend": times.backend,
        "activations": times.activations,
        "phase": times.phase,
        "tokens": times.n_tokens,
        "total_ms": number(times.seconds * 1e3),
        "operations": rows,
    }


def memory_rows(parts: Sequence[MemoryPart]) -> Json:
    rows = [{"name": part.name, "kind": part.kind, "bytes": part.nbytes} for part in parts]
    return {"parts": rows, "total": sum(part.nbytes for part in parts)}


def lens_positions(shape: Shape) -> int:
    """Positions that one logit lens shows at most: the work grows with layers and vocabulary."""
    return max(1, MAX_SCORES // ((shape.n_layers + 1) * shape.n_vocab))


def shape_rows(shape: Shape, model: Model) -> Json:
    return {
        "architecture": shape.architecture,
        "backend": model.ops.name,
        "activations": model.activations,
        "n_layers": shape.n_layers,
        "d_model": shape.d_model,
        "n_heads": list(shape.n_heads),
        "n_experts": max(shape.n_experts),
        "n_used": max(shape.n_used),
        "n_vocab": shape.n_vocab,
        "context": shape.context,
        "causal": shape.causal,
        "has_attention": list(shape.with_attention),
        "has_experts": list(shape.with_experts),
        "limits": {
            "tokens": min(MAX_TOKENS, shape.context),
            "numbers": MAX_NUMBERS,
            "layers_positions": lens_positions(shape),
            "size": MAX_SIZE,
            "top": {"tokens": 20, "layers": 10, "generate": 20},
            "repeat": MAX_REPEAT,
        },
    }
