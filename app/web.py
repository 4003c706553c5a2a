"""Around every request: its id, its error in the dialect of its address, its line in the log."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Mapping

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from .dialect import Dialect
from .errors import ApiError, ErrorKind
from .logs import Log
from .stream import dumps
from .trouble import as_api_error

_KINDS: Mapping[int, ErrorKind] = {
    401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method", 408: "timeout", 413: "too_large",
    503: "overloaded",
}  # fmt: skip


def request_id() -> str:
    """That of the current request: in its headers, its log line, and in the errors of dialects that show it."""
    if "request_id" not in g:
        g.request_id = f"req_{secrets.token_hex(12)}"
    return str(g.request_id)


def as_http_error(error: Exception) -> ApiError:
    """Any exception of a request in neutral words."""
    if isinstance(error, HTTPException):
        status = error.code or 500
        kind = _KINDS.get(status, "invalid" if status < 500 else "internal")
        return ApiError(kind, _words(kind, error))
    return as_api_error(error)


def _words(kind: ErrorKind, error: HTTPException) -> str:
    if kind == "not_found":
        return f"no such address: {request.method} {request.path[:200]!a}"
    if kind == "method":
        return f"{request.method[:20]!a} is not for {request.path[:200]!a}"
    if kind == "too_large":
        return f"the body is over the limit of {request.max_content_length} bytes"
    return (error.description or error.name).split("\n")[0]


def dialect_at(path: str, anthropic: bool) -> str:
    """The name of the dialect that an address belongs to. `anthropic`: the request has that one's version header."""
    if path.startswith("/v1/messages") or (anthropic and path.startswith("/v1/")):
        return "anthropic"
    return "openai" if path.startswith("/v1/") else "ollama"


def current_dialect(dialects: Mapping[str, Dialect]) -> Dialect | None:
    return dialects.get(dialect_at(request.path, "anthropic-version" in request.headers))


def handle_errors(app: Flask, dialects: Mapping[str, Dialect], log: Log) -> None:
    """Every exception of a request becomes its dialect's error."""

    @app.errorhandler(Exception)
    def _(error: Exception) -> Response:
        known = as_http_error(error)
        if known.kind == "internal":
            log.trouble(request_id(), "".join(traceback.format_exception(error)))
        g.error = known
        dialect = current_dialect(dialects)
        response = dialect.error(known) if dialect is not None else plain_error(known)
        if known.retry_after is not None:
            response.headers["Retry-After"] = str(known.retry_after)
        if known.kind == "method" and isinstance(error, HTTPException):
            response.headers.extend((k, v) for k, v in error.get_headers() if k == "Allow")
        return response


def error_response(app: Flask, path: str, anthropic: bool, error: ApiError) -> Response:
    """The response for a request that has not become one: refused before the application saw it."""
    dialect = app.extensions["dialects"].get(dialect_at(path, anthropic))
    with app.test_request_context("/"):
        return plain_error(error) if dialect is None else dialect.error(error)


def plain_error(error: ApiError) -> Response:
    """Ollama's form, for addresses that belong to no dialect."""
    return Response(dumps({"error": error.message}), error.status, content_type="application/json")
