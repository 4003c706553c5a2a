"""POST /v1/embeddings"""

from __future__ import annotations

import base64
import struct

from ..fields import HONOURED, IGNORED, INT_MAX, By, Field, Integer, Invalid, ListOf, OneOf, Text, kind, read
from ..messages import Embeddings, EmbedRequest
from .common import KEEP_ALIVE, MODEL, Json, keep_alive

MAX_INPUTS = 2048


def inputs(value: object, where: str) -> tuple[str | tuple[int, ...], ...]:
    """A text, texts, token ids, or lists of token ids; none of them empty."""
    if isinstance(value, str):
        return (Text(1)(value, where),)
    if not isinstance(value, list) or not value:
        raise Invalid(where, f"must be a string or a list that is not empty, not {kind(value)}")
    if isinstance(value[0], str):
        return tuple(ListOf(Text(1), 1, MAX_INPUTS)(value, where))
    ids = ListOf(Integer(0, INT_MAX), 1, 1_000_000)
    if isinstance(value[0], list):
        return tuple(tuple(each) for each in ListOf(ids, 1, MAX_INPUTS)(value, where))
    return (tuple(ids(value, where)),)


FIELDS = (
    MODEL,
    Field("input", By("string, token ids, or a list of them", inputs), HONOURED, "2048 at most", required=True),
    Field("encoding_format", OneOf(("float", "base64")), HONOURED, "base64: float32, little-endian"),
    Field("dimensions", Integer(1, INT_MAX), HONOURED, "only the first numbers, normalised again"),
    KEEP_ALIVE,
    Field("user", Text(), IGNORED),
)


def parse(body: object) -> tuple[EmbedRequest, bool]:
    """The request, and whether its vectors are to be in base64."""
    values = read(body, FIELDS)
    request = EmbedRequest(
        model=values["model"],
        inputs=values["input"],
        truncate=False,
        dimensions=values.get("dimensions"),
        keep_alive=keep_alive(values),
    )
    return request, values.get("encoding_format") == "base64"


def answer(request: EmbedRequest, found: Embeddings, packed: bool) -> Json:
    data = [
        {"object": "embedding", "index": i, "embedding": _packed(vector) if packed else list(vector)}
        for i, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}
    return {"object": "list", "data": data, "model": request.model, "usage": usage}


def _packed(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
