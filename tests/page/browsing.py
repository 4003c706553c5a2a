"""A page in a browser, the server behind it, and what went wrong on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
from playwright.sync_api import ConsoleMessage, Page, Request

from ref_engine_app.serve import Server

ALPHABET = "bcdefghijklmnopqrstuvwxyz"  # what the model "bigram" says after "a"


@dataclass
class Served:
    """A server with its address, and what it says to a client that is no browser."""

    server: Server

    @property
    def url(self) -> str:
        return self.server.url

    def post(self, path: str, body: object) -> Any:
        with requests.Session() as session:
            session.trust_env = False
            response = session.post(f"{self.url}{path}", json=body, timeout=120)
            assert response.status_code == 200, response.text
            return response.json()

    def get(self, path: str, **headers: str) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{self.url}{path}", headers=headers, timeout=60)

    def speaking(self) -> int:
        """Texts that are being generated or waiting."""
        loads = [resident.engine.load() for _, resident in self.server.pool.residents()]
        return sum(load.active + load.waiting for load in loads)


@dataclass
class Tab:
    """A page, and what went wrong on it. `expected`: words of errors that the test provokes."""

    page: Page
    served: Served
    problems: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def open(self) -> Page:
        self.page.goto(self.served.url)
        self.page.wait_for_selector("#send:enabled")
        return self.page

    def choose(self, model: str) -> None:
        self.page.select_option("#model", f"{model}:latest")

    def settings(self, **values: object) -> None:
        self.page.evaluate(
            "values => Object.entries(values).forEach(([id, value]) => document.getElementById(id).value = value)",
            values,
        )

    def say(self, text: str) -> None:
        self.page.fill("#prompt", text)
        self.page.press("#prompt", "Enter")

    def reply(self) -> str:
        """The text of the last answer, once it has ended."""
        self.page.wait_for_selector(".message.assistant[aria-busy=false]")
        return str(self.page.locator(".message.assistant .said").last.inner_text())

    def look(self, text: str) -> None:
        self.page.fill("#text", text)
        self.page.click("#sample button.main")
        self.shown("tokens")

    def shown(self, view: str) -> None:
        self.page.wait_for_selector(f"#view[data-shown={view}]:not([aria-busy])")

    def view(self, view: str) -> None:
        self.page.click(f"#tab-{view}")
        self.shown(view)

    def watch(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", self._asked)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(words in message.text for words in self.expected):
            self.problems.append(f"console: {message.text}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # which is what stopping is
            self.problems.append(f"failed: {request.url}: {request.failure}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(f"{self.served.url}/"):
            self.problems.append(f"outside: {request.url}")


def eventually(said: Callable[[], bool]) -> None:
    """Wait until something is so; not a matter of time but of threads."""
    until = time.monotonic() + 60
    while not said():
        assert time.monotonic() < until
        time.sleep(0.01)
