"""Servers on sockets of their own, with models that can be worked out by hand (tests/bigram.py)."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from bigram import write_bigram

from ref_engine.library import Store
from ref_engine_app.logs import Log
from ref_engine_app.serve import Server
from ref_engine_app.settings import Settings

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


@pytest.fixture(scope="session")
def bigram_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bigram(tmp_path_factory.mktemp("model") / "bigram.gguf", n_ctx=50_000)


@pytest.fixture
def store(tmp_path: Path, bigram_file: Path) -> Store:
    """A store with the model "bigram"."""
    made = Store(tmp_path / "models", read_only=())
    made.add_file("bigram", bigram_file)
    return made


@pytest.fixture
def serve(store: Store) -> Iterator[Callable[..., Running]]:
    """Starts servers, which are stopped after the test."""
    servers: list[Running] = []

    def start(**options: Any) -> Running:
        log = io.StringIO()
        defaults = {"port": 0, "parallel": 2, "n_ctx": 50_000, "grace": 0.0, "engine": {"n_threads": 1}}
        settings = Settings(**{**defaults, **options})
        server = Server(settings, store, Log(log, prompts=settings.log_prompts))
        running = Running(server, log)
        running.session.trust_env = False
        servers.append(running)
        server.start()
        return running

    yield start
    for running in servers:
        running.session.close()
        running.server.stop()
