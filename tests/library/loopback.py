"""A small HTTP server on this machine that serves well or misbehaves as told and remembers what it was asked; and a
progress that remembers."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Route:
    """How one path answers. `statuses` are used up first, one a request; `drops` are numbers of body bytes after
    which a request's connection is closed; `piece` and `delay` drip the body out."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    drops: list[int] = field(default_factory=list)
    ranges: bool = True
    declared: int | None = None
    content_range: str | None = None
    piece: int = 1 << 16
    delay: float = 0.0
    check: Callable[[dict[str, str]], int | None] | None = None


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    status: int
    sent: int = 0


class Loopback:
    """Routes by path, and the log of requests."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.log: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def sent(self, path: str) -> int:
        """Body bytes sent for a path, over all requests."""
        return sum(asked.sent for asked in self.log if asked.path.partition("?")[0] == path)


def _handler(loopback: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None: ...

        def do_GET(self) -> None:
            route = loopback.routes.get(self.path.partition("?")[0])
            headers = {key.lower(): value for key, value in self.headers.items()}
            status, start = 200, 0
            if route is None:
                route, status = Route(b"nothing here"), 404
            elif route.statuses:
                status = route.statuses.pop(0)
            if status == 200 and route.check is not None:
                status = route.check(headers) or 200
            wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
            fresh = headers.get("if-range", route.headers.get("ETag")) == route.headers.get("ETag")
            if status == 200 and wanted and route.ranges and fresh:
                start = int(wanted[1])
                status = 206 if start < len(route.body) else 416
            body = b"" if status == 416 else route.body[start:]
            asked = Asked(self.path, headers, status)
            loopback.log.append(asked)
            self.send_response(status)
            for key, value in route.headers.items():
                self.send_header(key, value)
            if status == 206:
                last = len(route.body) - 1
                self.send_header("Content-Range", route.content_range or f"bytes {start}-{last}/{last + 1}")
            self.send_header("Content-Length", str(len(body) if route.declared is None else route.declared))
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            stop = route.drops.pop(0) if route.drops and status in (200, 206) else len(body)
            try:
                for at in range(0, min(stop, len(body)), route.piece):
                    piece = body[at : min(at + route.piece, stop)]
                    asked.sent += len(piece)  # before the client can have it: a test that has the file may ask
                    self.wfile.write(piece)
                    time.sleep(route.delay)
            except OSError:
                self.close_connection = True  # the client hung up, or was killed

    return Handler


class Recorder:
    """A progress that remembers its steps as [label, total, done]."""

    def __init__(self) -> None:
        self.steps: list[list[object]] = []
        self.finished = 0

    def start(self, total: int | None, label: str) -> None:
        self.steps.append([label, total, 0])

    def advance(self, n: int) -> None:
        self.steps[-1][2] += n

    def done(self) -> None:
        self.finished += 1
