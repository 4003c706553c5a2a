"""Answers that come in pieces: SSE and NDJSON, and clients that leave before the end.

Sources: the WHATWG HTML standard, section "Server-sent events", and WSGI (PEP 3333): the server closes the iterator
of a response when it cannot write any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

from flask import Response, request

SSE = "text/event-stream; charset=utf-8"
NDJSON = "application/x-ndjson"


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # json.dumps would make one for each piece


def dumps(value: Any) -> str:
    """JSON on one line, as SSE and NDJSON need it; text as it is, not in escapes."""
    return _ENCODER.encode(value)


def sse(data: Any, event: str | None = None) -> bytes:
    """One server-sent event. `data`: a string as it is ("[DONE]"), anything else as JSON."""
    text = data if isinstance(data, str) else dumps(data)
    name = "" if event is None else f"event: {event}\n"
    return f"{name}data: {text}\n\n".encode()


def ndjson(data: Any) -> bytes:
    return f"{dumps(data)}\n".encode()


class _Pieces:
    """The first piece, then the others; closing it closes the source, also where nothing has been taken yet."""

    def __init__(self, first: bytes, rest: Iterator[bytes]) -> None:
        self._first: bytes | None = first
        self._rest = rest

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return next(self._rest)

    def close(self) -> None:
        if isinstance(self._rest, Generator):
            self._rest.close()


def streamed(pieces: Iterable[bytes], mimetype: str, headers: Mapping[str, str] | None = None) -> Response:
    """A response whose pieces are sent as they come. A generator is closed when the client leaves.

    The first piece is computed before the response begins, so that an error up to there has a status of its own.
    """
    rest = iter(pieces)
    response = Response(_Pieces(next(rest, b""), rest), content_type=mimetype)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # proxies would hold pieces back
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def client_gone() -> Callable[[], bool]:
    """Whether the client of the current request has left: to be called later, from any thread."""
    gone: Callable[[], bool] | None = request.environ.get("waitress.client_disconnected")
    return gone or (lambda: False)
