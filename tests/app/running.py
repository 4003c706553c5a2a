"""A server on a socket of its own, and requests to it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests

from ref_engine_app.serve import Server

ALPHABET = "bcdefghijklmnopqrstuvwxyz"  # what the model says after "a"


@dataclass
class Running:
    """A server, and requests to it."""

    server: Server
    log: io.StringIO
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def url(self) -> str:
        return self.server.url

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(f"{self.url}{path}", timeout=60, **options)

    def post(self, path: str, body: object, **options: Any) -> requests.Response:
        return self.session.post(f"{self.url}{path}", json=body, timeout=60, **options)

    def chat(self, text: str, model: str = "bigram", **more: Any) -> requests.Response:
        """Without a stream, in Ollama's dialect, at temperature 0."""
        options = {"temperature": 0, **more.pop("options", {})}
        message = {"role": "user", "content": text}
        return self.post(
            "/api/chat", {"model": model, "stream": False, "messages": [message], "options": options, **more}
        )

    def count(self, model: str = "bigram", limit: int = 1_000_000) -> requests.Response:
        """A stream of digits that ends only at the end of the context."""
        body = {"model": model, "messages": [{"role": "user", "content": "0"}], "options": {"temperature": 0}}
        return self.post("/api/chat", body, stream=True)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def eventually(said: Callable[[], bool]) -> None:
    """Wait until something is so; not a matter of time but of threads."""
    until = time.monotonic() + 60
    while not said():
        assert time.monotonic() < until
        time.sleep(0.005)
