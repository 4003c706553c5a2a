"""The composition root: everything that a request passes, in one place."""

from __future__ import annotations

import gzip
import time
from collections.abc import Mapping, Sequence
from importlib import import_module

from flask import Blueprint, Flask, Response, g, request

from .dialect import Dialect
from .errors import ApiError
from .logs import Log
from .metrics import CONTENT_TYPE, Metrics
from .security import guard
from .service import Service
from .settings import Settings
from .web import current_dialect, handle_errors, request_id

_DIALECTS = ("anthropic", "openai", "ollama")
_WORTH_PACKING = 1024  # bytes; below that a packet is a packet


def all_dialects() -> tuple[Dialect, ...]:
    """Anthropic, OpenAI, Ollama."""
    dialects = []
    for name in _DIALECTS:
        dialect = import_module(f".{name}", __package__).DIALECT
        assert isinstance(dialect, Dialect)
        dialects.append(dialect)
    return tuple(dialects)


def create_app(
    service: Service,
    settings: Settings | None = None,
    *,
    dialects: Sequence[Dialect] | None = None,
    blueprints: Sequence[Blueprint] = (),
    metrics: Metrics | None = None,
    log: Log | None = None,
) -> Flask:
    """The application over a service; `blueprints` are further addresses, such as those about a store of models."""
    settings, metrics, log = settings or Settings(), metrics or Metrics(), log or Log()
    known = {dialect.name: dialect for dialect in (all_dialects() if dialects is None else dialects)}
    app = Flask(__package__ or "app", static_folder=None)
    app.extensions["dialects"] = known
    app.url_map.strict_slashes = False
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    _observe(app, metrics, log)
    guard(app, settings)
    handle_errors(app, known, log)
    for dialect in known.values():
        app.register_blueprint(dialect.blueprint(service))
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    _shared_addresses(app, service, known)
    _operations(app, metrics)
    if settings.gzip:
        _pack(app)
    return app


def _observe(app: Flask, metrics: Metrics, log: Log) -> None:
    """Ids, the log line and the figures of every request; the time of a stream counts to its end."""

    @app.before_request
    def _() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def _(response: Response) -> Response:
        name = request_id()
        response.headers["request-id"] = response.headers["x-request-id"] = name
        began, error = g.get("began", time.perf_counter()), g.get("error")
        method, rule = request.method, request.url_rule.rule if request.url_rule else "none"
        line = {
            "request_id": name,
            "method": method,
            "path": request.path[:200],
            "status": response.status_code,
            "client": request.remote_addr,
            "error": None if error is None else error.message,
        }

        def ended() -> None:
            seconds = time.perf_counter() - began
            status = str(line["status"])
            metrics.count("ref_engine_requests_total", "Requests answered", method=method, path=rule, status=status)
            metrics.observe("ref_engine_request_seconds", "From a request to the end of its answer", seconds, path=rule)
            log.write("request", **line, seconds=round(seconds, 6))

        response.call_on_close(ended)
        return response


def _shared_addresses(app: Flask, service: Service, dialects: Mapping[str, Dialect]) -> None:
    """GET /v1/models is in two dialects; the version header that only one of them sends tells which is meant."""
    if not any(dialect.models for dialect in dialects.values()):
        return

    def asked() -> Dialect:
        dialect = current_dialect(dialects)
        if dialect is None or dialect.models is None or dialect.model is None:
            raise ApiError("not_found", "no such address")
        return dialect

    @app.get("/v1/models")
    def shared_models() -> Response:
        models = asked().models
        assert models is not None
        return models(service)

    @app.get("/v1/models/<path:name>")
    def shared_model(name: str) -> Response:
        model = asked().model
        assert model is not None
        return model(service, name)


def _operations(app: Flask, metrics: Metrics) -> None:
    @app.get("/healthz")
    def healthz() -> Response:
        return Response('{"status":"ok"}', content_type="application/json")

    @app.get("/metrics")
    def figures() -> Response:
        return Response(metrics.page(), content_type=CONTENT_TYPE)


def _pack(app: Flask) -> None:
    """gzip for whole answers, where the client says that it can take it. Streams are left alone: they are to arrive."""

    @app.after_request
    def _(response: Response) -> Response:
        if (
            response.is_sequence
            and request.accept_encodings.quality("gzip") > 0
            and "Content-Encoding" not in response.headers
            and (response.content_length or 0) >= _WORTH_PACKING
        ):
            response.set_data(gzip.compress(response.get_data(), 5, mtime=0))
            response.headers["Content-Encoding"] = "gzip"
            response.headers.add("Vary", "Accept-Encoding")
        return response
