"""Who may call: a web page of somebody else may not, even though it runs in a browser on this machine.

A browser sends Origin, which names the page, and Host, which names the server as the page knew it: a foreign Origin is
a page that calls without being asked, a foreign Host a DNS name that was pointed at this machine (rebinding). The lists
are Ollama's (`envconfig.AllowedOrigins`, `allowedHostsMiddleware` in server/routes.go).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from flask import Flask, Response, g, request

from .errors import ApiError
from .settings import Settings

_LOCAL_NAMES = ("localhost", "127.0.0.1", "0.0.0.0", "[::1]")
_LOCAL_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
_LOCAL_DOMAINS = (".localhost", ".local", ".internal")
_OPEN_PATHS = ("/", "/healthz")  # for load balancers, which have no key
_OPEN_FOLDER = "/page/"  # what asks for the key must be there before it
_METHODS = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"


def guard(app: Flask, settings: Settings) -> None:
    """Check Host, Origin, key and size before anything else, and answer what browsers ask before they call."""
    patterns = [_pattern(origin) for origin in settings.origins]
    listens_locally = is_loopback(settings.host)
    own_name = socket.gethostname()

    @app.before_request
    def _() -> Response | None:
        if listens_locally and not is_local_host(request.host, own_name):
            raise ApiError("forbidden", f"the host {request.host[:100]!a} is not this machine")
        origin = request.headers.get("Origin")
        if origin is not None:
            if not origin_allowed(origin, request.host, patterns):
                raise ApiError(
                    "forbidden", f"the origin {origin[:100]!a} may not call; REF_ENGINE_ORIGINS lists those that may"
                )
            g.origin = origin
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                return Response(status=204)
        is_open = request.path in _OPEN_PATHS or request.path.startswith(_OPEN_FOLDER)
        if settings.api_key is not None and not is_open:
            _check_key(settings.api_key)
        request.max_content_length = (
            settings.max_upload if request.path.startswith("/api/blobs/") else settings.max_body
        )
        if (request.content_length or 0) > request.max_content_length:
            raise ApiError("too_large", f"the body is over the limit of {request.max_content_length} bytes")
        return None

    @app.after_request
    def _(response: Response) -> Response:
        if "origin" in g:
            response.headers["Access-Control-Allow-Origin"] = g.origin
            response.headers["Access-Control-Expose-Headers"] = "request-id, x-request-id, retry-after"
            response.headers["Vary"] = "Origin"
            if request.method == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = _METHODS
                asked = request.headers.get("Access-Control-Request-Headers")
                if asked is not None and re.fullmatch(r"[A-Za-z0-9_, -]{1,2000}", asked):
                    response.headers["Access-Control-Allow-Headers"] = asked
                response.headers["Access-Control-Max-Age"] = "43200"
        return response


def _check_key(key: str) -> None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    given = [request.headers.get("x-api-key", ""), token.strip() if scheme.lower() == "bearer" else ""]
    if not any(hmac.compare_digest(text.encode(), key.encode()) for text in given):
        raise ApiError("unauthorized", "an API key is needed, in Authorization: Bearer or x-api-key")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine's own: others have names that only their operator knows."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_local_host(host: str, own_name: str) -> bool:
    """Whether a Host header names this machine, called `own_name`, or its own network.

    Addresses of the loopback, of private networks and of no network do; so do this machine's name and the names that
    no public DNS gives out. An empty header does: HTTP/1.0 has none.
    """
    name = _without_port(host).lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in ("", "localhost", own_name.lower()) or name.endswith(_LOCAL_DOMAINS)
    if address.is_unspecified:
        return True
    return address.is_loopback or address.is_private or address.is_link_local


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0]


def origin_allowed(origin: str, host: str, patterns: Sequence[re.Pattern[str]] = ()) -> bool:
    """Whether a web origin may call the server that it knows as `host`: its own pages, those of this machine, desktop
    shells, and those that match a pattern."""
    try:
        parts = urlsplit(origin)
        name = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme in ("http", "https"):
        shown = f"[{name}]" if ":" in name else name
        if parts.netloc == host or shown in _LOCAL_NAMES:
            return True
    elif parts.scheme in _LOCAL_SCHEMES and "://" in origin:
        return True
    return any(pattern.fullmatch(origin) for pattern in patterns)


def _pattern(origin: str) -> re.Pattern[str]:
    """An allowed origin, in which * stands for anything."""
    return re.compile(".*".join(map(re.escape, origin.split("*"))))
