"""The page in Debian's Chromium, over a real server with real models. Nothing may go wrong quietly: every test fails on
an error in the console, on a request that fails, and on a request to anywhere else."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bigram import write_bigram
from browsing import Served, Tab
from playwright.sync_api import Browser, expect, sync_playwright

from ref_engine.library import Store
from ref_engine_app.logs import Log
from ref_engine_app.serve import Server
from ref_engine_app.settings import Settings

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
PATIENCE = 60_000  # milliseconds: a busy machine is not a failure
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Starts servers with the model "bigram", which can be worked out by hand, and others by name and path."""
    servers: list[Server] = []
    bigram = write_bigram(tmp_path_factory.mktemp("bigram") / "bigram.gguf", n_ctx=50_000)

    def start(models: dict[str, Path] | None = None, **options: Any) -> Served:
        store = Store(tmp_path_factory.mktemp("store"), read_only=())
        for name, path in {"bigram": bigram, **(models or {})}.items():
            store.add_file(name, path)
        engine = {"n_threads": 1}  # more would spin where others want the processor
        settings = {"port": 0, "parallel": 2, "n_ctx": 2048, "grace": 0.0, "keep_alive": float("inf"), "engine": engine}
        server = Server(Settings(**{**settings, **options}), store, Log(io.StringIO()))
        servers.append(server)
        server.start()
        return Served(server)

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def small(start_server: Callable[..., Served]) -> Served:
    """A server whose answers are known: a -> b -> ... -> z, and digits without end."""
    return start_server(n_ctx=50_000)


@pytest.fixture(scope="session")
def real(start_server: Callable[..., Served], smollm2: Path, golden: Path) -> Served:
    """A server with a dense model and a mixture of experts."""
    return start_server({"smollm2": smollm2, "tiny-moe": golden / "models" / "tiny-moe.gguf"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each file: while it is there, its thread has an event loop that other tests would meet."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Chromium is not here: `make browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """Opens pages of servers, each with a storage of its own, and looks after the test what went wrong on them."""
    tabs: list[Tab] = []

    def make(served: Served, **options: Any) -> Tab:
        context = browser.new_context(**{"viewport": {"width": 1180, "height": 900}, **options})
        context.set_default_timeout(PATIENCE)
        tabs.append(Tab(context.new_page(), served))
        tabs[-1].watch()
        return tabs[-1]

    yield make
    for each in tabs:
        each.page.context.close()
        assert each.problems == []
