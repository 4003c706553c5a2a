"""The Ollama dialect: generate, chat, embed. What is about the store of models is at addresses of its own.

options.py  options, keep_alive, format, think    incoming.py the fields of a request
answer.py   lines of a stream, whole answers      embed.py    vectors

Source: `api/types.go` and `server/routes.go` of Ollama, and its API reference.
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from ..dialect import Dialect
from ..errors import ApiError
from ..fields import parse_json
from ..messages import Embeddings, fold
from ..service import Service
from ..stream import NDJSON, client_gone, dumps, ndjson, streamed
from . import embed
from .answer import Chat, Form, Generate, Json, stream, whole
from .incoming import Call, parse_chat, parse_generate


def blueprint(service: Service) -> Blueprint:
    """The routes that generate text and vectors."""
    routes = Blueprint("ollama", __name__)

    @routes.post("/api/generate")
    def generate() -> Response:
        call = parse_generate(parse_json(request.get_data()))
        return _answer(service, call, Generate(call))

    @routes.post("/api/chat")
    def chat() -> Response:
        call = parse_chat(parse_json(request.get_data()))
        return _answer(service, call, Chat(call))

    @routes.post("/api/embed")
    def vectors() -> Response:
        call = embed.parse(parse_json(request.get_data()))
        return _json(embed.answer(call, _embed(service, call)))

    @routes.post("/api/embeddings")
    def vector() -> Response:
        call = embed.parse(parse_json(request.get_data()), older=True)
        return _json(embed.older_answer(_embed(service, call)))

    return routes


def _answer(service: Service, call: Call, form: Form) -> Response:
    if call.request is None:
        service.load(call.model, call.keep_alive)
        return _json(form.nothing("unload" if call.keep_alive == 0 else "load"))
    events = service.run(call.request, client_gone())
    if call.stream:
        return streamed((ndjson(line) for line in stream(form, events)), NDJSON)
    (answer,) = fold(events)
    return _json(whole(form, answer))


def _embed(service: Service, call: embed.Call) -> Embeddings | None:
    if call.request is None:
        service.load(call.model, call.keep_alive)
        return None
    return service.embed(call.request)


def _json(body: Json) -> Response:
    return Response(dumps(body), content_type="application/json; charset=utf-8")


def error(failure: ApiError) -> Response:
    """The response for anything that failed before a stream began."""
    response = _json({"error": failure.message})
    response.status_code = failure.status
    return response


DIALECT = Dialect("ollama", blueprint, error)
