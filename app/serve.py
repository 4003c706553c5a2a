"""The whole server: store, models, pipeline, application, sockets; and its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping

from flask import has_request_context, request

from ref_engine.library import Store

from .factory import create_app
from .lens import blueprint as lens
from .lens.looking import Looking
from .library import Library
from .logs import Log
from .memory import budget, need_of
from .metrics import Labels, Metrics
from .models import ModelPool
from .ollama_models import blueprint as store_addresses
from .page import blueprint as page
from .pipeline import Caller, Pipeline
from .resident import open_resident
from .settings import Settings
from .sockets import Listener
from .web import request_id


class Server:
    """Everything put together; `start` it, and `stop` it."""

    def __init__(self, settings: Settings, store: Store | None = None, log: Log | None = None) -> None:
        """Raises OSError where the address cannot be listened on."""
        self.settings = settings
        self.log = log or Log()
        self.metrics = Metrics()
        self.library = Library(store or Store())
        self.pool = ModelPool(
            lambda path, need: open_resident(path, need, settings),
            lambda path: need_of(path, settings),
            budget=budget(settings.memory),
            keep_alive=settings.keep_alive,
            max_waiting=settings.max_queue,
            told=self.log.write,
        )
        self.pipeline = Pipeline(self.library, self.pool, metrics=self.metrics, log=self.log, caller=current_caller)
        _watch(self.metrics, self.pool)
        self.app = create_app(
            self.pipeline,
            settings,
            blueprints=[page(), store_addresses(self.library, self.pool), lens(self._looking(), self.pipeline)],
            metrics=self.metrics,
            log=self.log,
        )
        self._listener = Listener(self.app, settings)
        self.url = self._listener.url
        self._stopped = False

    def _looking(self) -> Looking:
        return Looking(self.library, self.pool, self.metrics, self.log)

    def start(self) -> None:
        self._listener.start()
        self.log.write("listening", url=self.url)

    def stop(self) -> None:
        """Open streams end within the grace that the settings give, or with an error; then everything closes.

        Once is enough; again does nothing.
        """
        if self._stopped:
            return
        self._stopped = True
        self.log.write("stopping")
        self._listener.stop(lambda: self.pool.stop(self.settings.grace))
        self.log.write("stopped")


def serve_until_signal(server: Server, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until Ctrl-C or SIGTERM; a second one ends the process at once."""
    wanted = threading.Event()

    def ask(number: int, frame: object) -> None:
        if wanted.is_set():
            raise KeyboardInterrupt
        wanted.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    server.start()
    ready()
    while not wanted.wait(0.5):  # with a timeout, or Windows would not see Ctrl-C
        pass
    server.stop()


def current_caller() -> Caller:
    """Who asks: by key where there is one, else by address."""
    if not has_request_context():
        return Caller()
    key = request.headers.get("Authorization") or request.headers.get("x-api-key") or ""
    return Caller(request_id(), f"{request.remote_addr} {hash(key)}")


def _watch(metrics: Metrics, pool: ModelPool) -> None:
    """Figures that are read when they are asked for."""

    def each(figure: Callable[..., float]) -> Callable[[], Mapping[Labels, float]]:
        return lambda: {(("model", name),): figure(resident.engine.load()) for name, resident in pool.residents()}

    metrics.gauge("ref_engine_active", "Sequences that generate", each(lambda load: load.active))
    metrics.gauge("ref_engine_waiting", "Requests that wait for a slot", each(lambda load: load.waiting))
    metrics.gauge("ref_engine_cached_tokens", "Tokens that slots hold", each(lambda load: load.cached_tokens))
    metrics.gauge(
        "ref_engine_model_bytes",
        "Memory that a model takes at most",
        lambda: {(("model", running.name),): float(running.need.total) for running in pool.running()},
    )
    metrics.gauge("ref_engine_memory_budget_bytes", "Memory that models may take", lambda: {(): float(pool.budget)})
