"""Servers on sockets of their own, with models that can be worked out by hand (tests/bigram.py)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bigram import write_bigram
from running import Running

from ref_engine.library import Store
from ref_engine_app.logs import Log
from ref_engine_app.serve import Server
from ref_engine_app.settings import Settings


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
