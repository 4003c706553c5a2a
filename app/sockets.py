"""waitress over one listening socket, with what it does not do by itself: errors of the protocol in the dialect of
their address, a limit of the body by address, and an end that lets answers under way be finished."""

from __future__ import annotations

import copy
import socket
import threading
import time
from collections.abc import Callable

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer, create_server
from waitress.task import ErrorTask, WSGITask

from .errors import ApiError, ErrorKind
from .settings import Settings
from .web import error_response

_UPLOADS = "/api/blobs/"
_FLUSH_S = 2.0  # for the last bytes of answers, once they have been written
_KINDS: dict[int, ErrorKind] = {400: "invalid", 413: "too_large", 431: "invalid", 501: "invalid", 500: "internal"}
_SPARE_THREADS = 16  # besides those that wait for an answer: lists, health, metrics


class Listener:
    """A server on a socket. `run` serves until `stop`, which any thread may call."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        """Raises OSError where the address cannot be listened on."""
        sock = _listening(settings.host, settings.port)
        threads = settings.parallel + settings.max_queue + _SPARE_THREADS
        self._server = create_server(
            app,
            sockets=[sock],
            threads=threads,
            ident="ref-engine",
            max_request_body_size=settings.max_body + 1,
            channel_request_lookahead=1,  # keeps reading, and so notices a client that has left
            connection_limit=1000,
            asyncore_use_poll=hasattr(wasyncore, "poll2"),
            asyncore_loop_timeout=1,
            clear_untrusted_proxy_headers=True,
        )
        assert isinstance(self._server, TcpWSGIServer)
        self._server.channel_class = _channel_class(app, self._server.adj, settings)
        self._thread = threading.Thread(target=self._server.run, name="sockets", daemon=True)
        host, port = sock.getsockname()[:2]
        self.port: int = port
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self, finish: Callable[[], None]) -> None:
        """Accept nobody any more; `finish` ends the answers under way; send what they still have to say; close."""
        self._in_loop(self._stop_accepting)
        finish()
        until = time.monotonic() + _FLUSH_S
        while time.monotonic() < until and any(
            channel.requests or channel.total_outbufs_len for channel in list(self._server.active_channels.values())
        ):
            time.sleep(0.01)
        self._server.task_dispatcher.shutdown(timeout=1)
        self._in_loop(lambda: wasyncore.close_all(self._server._map, ignore_all=True))
        self._thread.join(5)

    def _stop_accepting(self) -> None:
        self._server.accepting = False
        self._server.del_channel()
        self._server.socket.close()

    def _in_loop(self, function: Callable[[], object]) -> None:
        """Run on the thread of the sockets, and wait for it."""
        done = threading.Event()

        def run() -> None:
            try:
                function()
            finally:
                done.set()

        self._server.trigger.pull_trigger(run)
        done.wait(5)


class _Task(WSGITask):  # type: ignore[misc]
    """waitress closes a connection after an answer in chunks, which their end makes needless."""

    _keep = False

    def build_response_header(self) -> bytes:
        asked = self.request.headers.get("CONNECTION", "").lower()
        self._keep = self.version == "1.1" and asked != "close" and not self.close_on_finish
        try:
            header: bytes = super().build_response_header()
            return header
        finally:
            self._keep = False

    def set_close_on_finish(self) -> None:
        if not self._keep:
            super().set_close_on_finish()


def _listening(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    return socket.create_server(address[:2], family=family, backlog=1024)


def _channel_class(app: Flask, adjustments: Adjustments, settings: Settings) -> type[HTTPChannel]:
    uploads = copy.copy(adjustments)
    uploads.max_request_body_size = settings.max_upload + 1

    class Parser(HTTPRequestParser):  # type: ignore[misc]
        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            if self.path.startswith(_UPLOADS):
                self.adj = uploads

    class Refusal(ErrorTask):  # type: ignore[misc]
        """waitress says errors as plain text."""

        def execute(self) -> None:
            failed = self.request.error
            kind = _KINDS.get(failed.code, "invalid" if failed.code < 500 else "internal")
            message = " ".join(f"{failed.reason}: {failed.body}".split())
            path = getattr(self.request, "path", "") or "/"
            response = error_response(
                app, path, "ANTHROPIC_VERSION" in self.request.headers, ApiError(kind, message[:300])
            )
            body = response.get_data()
            self.status = response.status
            self.response_headers.extend([("Content-Type", response.content_type or "application/json")])
            self.set_close_on_finish()
            self.content_length = len(body)
            self.write(body)

    class Channel(HTTPChannel):  # type: ignore[misc]
        parser_class = Parser
        task_class = _Task
        error_task_class = Refusal

    return Channel
