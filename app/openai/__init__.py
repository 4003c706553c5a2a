"""The OpenAI dialect: chat completions, completions, embeddings, responses, and models as this API lists them.

chat_request.py, chat_answer.py            /v1/chat/completions      completions.py  /v1/completions
responses_request.py, responses_answer.py  /v1/responses             embeddings.py   /v1/embeddings
common.py                                  what they share

Source: the types of the official SDK (`openai` on the package index) and the API's own reference.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, request

from ..dialect import Dialect
from ..errors import ApiError
from ..fields import parse_json, read
from ..messages import fold
from ..service import ModelCard, Service
from ..stream import SSE, client_gone, dumps, sse, streamed
from . import chat_answer, chat_request, completions, embeddings, responses_answer, responses_request
from .common import error_body


def blueprint(service: Service) -> Blueprint:
    """The routes of this dialect that no other has."""
    routes = Blueprint("openai", __name__)

    @routes.post("/v1/chat/completions")
    def chat() -> Response:
        call = chat_request.parse(_body())
        name, created = _id("chatcmpl-"), int(time.time())
        events = service.run(call.request, client_gone())
        if call.request.stream:
            return _stream(chat_answer.stream(call, name, created, events))
        return _json(chat_answer.whole(call, name, created, fold(events)))

    @routes.post("/v1/completions")
    def complete() -> Response:
        call = completions.parse(_body())
        name, created = _id("cmpl-"), int(time.time())
        runs = [service.run(each, client_gone()) for each in call.requests]
        if call.requests[0].stream:
            return _stream(completions.stream(call, name, created, runs))
        answers = [answer for run in runs for answer in fold(run)]
        return _json(completions.whole(call, name, created, answers))

    @routes.post("/v1/embeddings")
    def embed() -> Response:
        wanted, packed = embeddings.parse(_body())
        return _json(embeddings.answer(wanted, service.embed(wanted), packed))

    @routes.post("/v1/responses")
    def respond() -> Response:
        call = responses_request.parse(_body())
        writer = responses_answer.Writer(call, _id("resp_"), time.time())
        events = service.run(call.request, client_gone())
        if call.request.stream:
            return streamed((sse(piece, piece["type"]) for piece in writer.stream(events)), SSE)
        (answer,) = fold(events)
        return _json(writer.whole(answer))

    return routes


def _body() -> Any:
    return parse_json(request.get_data())


def _id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


def _stream(pieces: Iterator[Any]) -> Response:
    return streamed((sse(piece) for piece in pieces), SSE)


def _json(body: Any) -> Response:
    return Response(dumps(body), content_type="application/json")


def error(failure: ApiError) -> Response:
    """The response for anything that failed before a stream began."""
    response = _json(error_body(failure))
    response.status_code = failure.status
    return response


def models(service: Service) -> Response:
    """GET /v1/models"""
    read(dict(request.args), ())
    return _json({"object": "list", "data": [_model_body(card) for card in service.models()]})


def model(service: Service, name: str) -> Response:
    """GET /v1/models/NAME"""
    return _json(_model_body(service.model(name)))


def _model_body(card: ModelCard) -> dict[str, Any]:
    return {"id": card.id, "object": "model", "created": int(card.created), "owned_by": card.owner}


DIALECT = Dialect("openai", blueprint, error, models, model)
