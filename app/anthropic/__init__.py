"""The Anthropic dialect: POST /v1/messages and /v1/messages/count_tokens, and models as this API lists them.

blocks.py   content blocks        incoming.py the fields of a request
turns.py    the order of turns    answer.py   events and messages

Source: the types of the official SDK (`anthropic` on the package index) and the API's own reference.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request

from ..dialect import Dialect
from ..errors import ApiError
from ..fields import HONOURED, IGNORED, Field, Integer, Invalid, OneOf, Text, parse_json, read
from ..messages import Event, fold
from ..service import ModelCard, Service
from ..stream import SSE, client_gone, dumps, sse, streamed
from ..web import request_id
from .answer import error_body, stream, whole
from .incoming import Call, parse

LIST_FIELDS = (
    Field("limit", Integer(1, 1000), HONOURED, "20 by default"),
    Field("after_id", Text(1), HONOURED),
    Field("before_id", Text(1), HONOURED),
    Field("lifecycle", OneOf(("active", "deprecated", "retired")), HONOURED, "models here are all active"),
    Field("lifecycle[]", OneOf(("active", "deprecated", "retired")), HONOURED, "the same, as SDKs write lists"),
    Field("beta", OneOf(("true", "false")), IGNORED),
)


def blueprint(service: Service) -> Blueprint:
    """The routes of this dialect that no other has."""
    routes = Blueprint("anthropic", __name__)

    @routes.post("/v1/messages")
    def messages() -> Response:
        call = parse(parse_json(request.get_data()))
        events = service.run(call.request, client_gone())
        message_id = f"msg_{secrets.token_hex(12)}"
        if call.request.stream:
            return streamed(_pieces(call, message_id, events), SSE)
        (answer,) = fold(events)
        return _json(whole(call, message_id, answer))

    @routes.post("/v1/messages/count_tokens")
    def count_tokens() -> Response:
        call = parse(parse_json(request.get_data()), counting=True)
        return _json({"input_tokens": service.count_tokens(call.request)})

    return routes


def _pieces(call: Call, message_id: str, events: Iterator[Event]) -> Iterator[bytes]:
    for name, data in stream(call, message_id, events):
        yield sse(data, name)


def _json(body: Any) -> Response:
    return Response(dumps(body), content_type="application/json")


def error(failure: ApiError) -> Response:
    """The response for anything that failed before a stream began."""
    response = _json(error_body(failure, request_id()))
    response.status_code = failure.status
    return response


def models(service: Service) -> Response:
    """GET /v1/models: a page of them, newest first."""
    values = read({name: _number(name, text) for name, text in request.args.items()}, LIST_FIELDS)
    cards = list(service.models()) if values.get("lifecycle", values.get("lifecycle[]", "active")) == "active" else []
    names = [card.id for card in cards]
    for cursor in ("after_id", "before_id"):
        if cursor in values and values[cursor] not in names:
            raise Invalid(cursor, "is no model of this list")
    low = names.index(values["after_id"]) + 1 if "after_id" in values else 0
    high = names.index(values["before_id"]) if "before_id" in values else len(cards)
    limit = values.get("limit", 20)
    if "before_id" in values and "after_id" not in values:
        low, more = max(low, high - limit), high - limit > low
    else:
        high, more = min(high, low + limit), low + limit < high
    page = [_model_body(card) for card in cards[low:high]]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return _json({"data": page, "has_more": more, **ends})


def _number(name: str, text: str) -> object:
    return int(text) if name == "limit" and text.isascii() and text.isdigit() and len(text) < 10 else text


def model(service: Service, name: str) -> Response:
    """GET /v1/models/NAME"""
    return _json(_model_body(service.model(name)))


def _model_body(card: ModelCard) -> dict[str, Any]:
    created = datetime.fromtimestamp(max(card.created, 0), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "type": "model",
        "id": card.id,
        "display_name": card.id,
        "created_at": created,
        "lifecycle": "active",
        "max_input_tokens": card.n_ctx,
        "max_tokens": card.n_ctx,
    }


DIALECT = Dialect("anthropic", blueprint, error, models, model)
