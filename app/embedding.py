"""Texts to vectors of length 1, by the pooling that the model's file names (llama.cpp: `enum llama_pooling_type`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ContextFull
from ref_engine.reference.sums import F32

from .errors import ApiError
from .messages import EmbedRequest
from .resident import Resident

_MEAN, _CLS, _LAST = 1, 2, 3


def embed(request: EmbedRequest, resident: Resident) -> tuple[tuple[tuple[float, ...], ...], int]:
    """A vector for each input, and how many tokens they have together. Each is a job of its own for the engine."""
    pooling = _pooling(resident)
    vectors, total = [], 0
    for i, text in enumerate(request.inputs):
        ids = _ids(request, resident, i, text)
        total += len(ids)
        hidden = resident.engine.call(lambda ids=ids: resident.model.embeddings(ids))  # type: ignore[misc]
        vectors.append(_unit(_pooled(hidden, pooling), request.dimensions))
    return tuple(vectors), total


def _ids(request: EmbedRequest, resident: Resident, i: int, text: str | tuple[int, ...]) -> list[int]:
    tokenizer, limit = resident.tokenizer, resident.engine.n_ctx
    ids = tokenizer.encode(text) if isinstance(text, str) else list(text)
    if not ids:
        raise ApiError("invalid", f"input {i} has no tokens", "input")
    for id in ids:
        if not 0 <= id < tokenizer.n_vocab:
            raise ApiError("invalid", f"input {i}: token {id} is outside the vocabulary", "input")
    if len(ids) > limit and not request.truncate:
        raise ContextFull(f"input {i} has {len(ids)} tokens, the context {limit}")
    if len(ids) <= limit:
        return ids
    after = [id for id in tokenizer.added_after if id is not None] if isinstance(text, str) else []
    return [*ids[: limit - len(after)], *after][:limit]  # the mark of its end stays, as with transformers


def _pooling(resident: Resident) -> int:
    """What the file says; a model that is not made for embeddings speaks for its text with the last token."""
    named = resident.model.metadata.get(f"{resident.model.spec.arch}.pooling_type")
    if named is None or named == 0:
        return _LAST
    if named not in (_MEAN, _CLS, _LAST):
        raise ApiError("unsupported", f"pooling type {named} gives no embeddings", "model")
    return int(str(named))


def _pooled(hidden: F32, pooling: int) -> NDArray[np.float64]:
    """(T, D) -> (D,)"""
    rows = hidden.astype(np.float64)
    if pooling == _MEAN:
        return np.asarray(rows.mean(axis=0))
    return np.asarray(rows[0 if pooling == _CLS else -1])


def _unit(vector: NDArray[np.float64], dimensions: int | None) -> tuple[float, ...]:
    if dimensions is not None:
        if dimensions > vector.size:
            raise ApiError("invalid", f"this model has {vector.size} dimensions, not {dimensions}", "dimensions")
        vector = vector[:dimensions]
    length = float(np.sqrt((vector * vector).sum()))
    return tuple((vector / (length or 1.0)).tolist())
