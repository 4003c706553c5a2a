"""The page: a chat, and under it a microscope. Plain HTML, CSS and JavaScript modules, served as they are.

`/` is two things: a browser, whose Accept names text/html, gets the page; everybody else gets the text that Ollama's
clients look for. The files are read once, when the server starts, and found by their exact name: what is not in the
table does not exist, so no path leads out of the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

from flask import Blueprint, Response, request

from ..errors import ApiError

FOLDER = "/page/"
INDEX = "index.html"
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_POLICY = (
    "default-src 'self'",  # no inline script or style, no eval, nothing from elsewhere
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",  # nor can a string become markup: what models say is shown as text
    "trusted-types 'none'",
)
_HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # ask each time; 304 where nothing has changed
}


@dataclass(frozen=True)
class StaticFile:
    """data: the bytes; content_type: for the header; etag: of these bytes."""

    data: bytes
    content_type: str
    etag: str


def blueprint() -> Blueprint:
    """`/`, and the page's files under /page/."""
    routes = Blueprint("page", __name__)
    table = static_files()

    @routes.get("/")
    def root() -> Response:
        if wants_html():
            response = _answer(table[INDEX])
        else:
            response = Response("Ollama is running", content_type="text/plain; charset=utf-8")
        response.headers["Vary"] = "Accept"
        return response

    @routes.get(f"{FOLDER}<path:name>")
    def file(name: str) -> Response:
        found = table.get(name)
        if found is None:
            raise ApiError("not_found", f"the page has no file {name[:100]!a}")
        return _answer(found)

    return routes


def wants_html() -> bool:
    """Whether the client of the current request names text/html: */*, which everybody sends, is not enough."""
    return any(kind.lower() == "text/html" and quality > 0 for kind, quality in request.accept_mimetypes)


def static_files() -> Mapping[str, StaticFile]:
    """Name, with slashes, to file: all that this package holds of a known type."""
    return MappingProxyType(dict(_walk(files(__package__), "")))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, StaticFile]]:
    for entry in folder.iterdir():
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif kind is not None:
            data = entry.read_bytes()
            etag = hashlib.sha256(data).hexdigest()[:32]
            yield f"{prefix}{entry.name}", StaticFile(data, f"{kind}; charset=utf-8", etag)


def _answer(file: StaticFile) -> Response:
    response = Response(file.data, content_type=file.content_type)
    response.headers.extend(_HEADERS)
    response.set_etag(file.etag, weak=True)  # weak: the same etag with and without gzip
    response.make_conditional(request)
    return response
