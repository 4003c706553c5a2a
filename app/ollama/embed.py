"""POST /api/embed, and its older form /api/embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..fields import HONOURED, IGNORED, INT_MAX, By, Field, Flag, Integer, Invalid, ListOf, Text, kind, read
from ..messages import Embeddings, EmbedRequest
from .answer import nanoseconds
from .options import KEEP_ALIVE, MODEL, options

Json = dict[str, Any]
MAX_INPUTS = 10_000
_OPTIONS = Field("options", By("object", options), IGNORED, "checked; nothing is sampled")


def inputs(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    if not isinstance(value, list):
        raise Invalid(where, f"must be a string or a list of strings, not {kind(value)}")
    return tuple(ListOf(Text(1), high=MAX_INPUTS)(value, where))


EMBED_FIELDS = (
    MODEL,
    Field("input", By("string or list of strings", inputs), HONOURED, "empty: load the model"),
    Field("truncate", Flag(), HONOURED, "true by default: what is too long is cut"),
    Field("dimensions", Integer(1, INT_MAX), HONOURED, "only the first numbers, normalised again"),
    KEEP_ALIVE,
    _OPTIONS,
)
EMBEDDINGS_FIELDS = (
    MODEL,
    Field("prompt", Text(), HONOURED, "empty: load the model"),
    KEEP_ALIVE,
    _OPTIONS,
)


@dataclass(frozen=True)
class Call:
    """`request` None: only load the model."""

    model: str
    keep_alive: float | None
    request: EmbedRequest | None


def parse(body: object, older: bool = False) -> Call:
    values = read(body, EMBEDDINGS_FIELDS if older else EMBED_FIELDS)
    prompt = values.get("prompt")
    texts = ((prompt,) if prompt else ()) if older else values.get("input", ())
    request = None
    if texts:
        request = EmbedRequest(
            model=values["model"],
            inputs=texts,
            truncate=values.get("truncate", True),
            dimensions=values.get("dimensions"),
            keep_alive=values.get("keep_alive"),
        )
    return Call(values["model"], values.get("keep_alive"), request)


def answer(call: Call, found: Embeddings | None) -> Json:
    """What /api/embed says; `found` None: there was no input."""
    if found is None:
        return {"model": call.model, "embeddings": []}
    return {
        "model": call.model,
        "embeddings": [list(vector) for vector in found.vectors],
        "total_duration": nanoseconds(found.total_s),
        "load_duration": nanoseconds(found.load_s),
        "prompt_eval_count": found.prompt_tokens,
    }


def older_answer(found: Embeddings | None) -> Json:
    return {"embedding": [] if found is None else list(found.vectors[0])}
