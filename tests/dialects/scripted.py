"""A service without a model: it plays a script of neutral events and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import waitress.server
from flask import Flask

from ref_engine_app import create_app
from ref_engine_app.errors import ApiError
from ref_engine_app.messages import (
    Done,
    Embeddings,
    EmbedRequest,
    Event,
    Request,
    Start,
    TextDelta,
    ThinkingDelta,
    Timings,
    TokenInfo,
    ToolDelta,
    ToolEnd,
    ToolStart,
    Usage,
)
from ref_engine_app.service import ModelCard, never

TIMES = Timings(total_s=2.0, load_s=0.5, queued_s=0.0, prompt_s=0.25, decode_s=1.25)


def text(*pieces: str, reason: Any = "stop", stop_sequence: str | None = None, cached: int = 0) -> list[Event]:
    """Start, pieces of text, Done: a prompt of 11 tokens, one token for each piece."""
    deltas = [TextDelta(piece) for piece in pieces]
    done = Done(reason, Usage(11, cached, len(pieces)), TIMES, stop_sequence, context=(1, 2, 3))
    return [Start("m", 11, cached), *deltas, done]


def calls(*made: tuple[str, str, Sequence[str], dict[str, Any]], before: str = "") -> list[Event]:
    """Calls of tools, each of id, name, the pieces of its arguments, and the arguments."""
    events: list[Event] = [Start("m", 20, 0)]
    if before:
        events.append(TextDelta(before))
    for i, (call_id, name, pieces, arguments) in enumerate(made):
        events.append(ToolStart(i, call_id, name))
        events += [ToolDelta(i, piece) for piece in pieces]
        events.append(ToolEnd(i, arguments))
    return [*events, Done("tool_use", Usage(20, 0, 9), TIMES, context=(1,))]


def thoughts(thought: Sequence[str], answer: Sequence[str]) -> list[Event]:
    deltas: list[Event] = [ThinkingDelta(piece) for piece in thought]
    deltas += [TextDelta(piece) for piece in answer]
    usage = Usage(7, 4, len(deltas), len(thought))
    return [Start("m", 7, 4), *deltas, Done("stop", usage, TIMES)]


def scored(*tokens: tuple[str, float, Sequence[tuple[str, float]]]) -> list[Event]:
    """Text with the probabilities of its tokens and of others."""
    deltas = [
        TextDelta(token, (TokenInfo(i, token.encode(), p, tuple(TokenInfo(9, o.encode(), q) for o, q in others)),))
        for i, (token, p, others) in enumerate(tokens)
    ]
    return [Start("m", 5, 0), *deltas, Done("stop", Usage(5, 0, len(tokens)), TIMES)]


class Scripted:
    """Plays `script` for every request; an ApiError in its place is raised."""

    def __init__(self, script: Sequence[Event] | ApiError | Callable[[Request], Sequence[Event]] = ()) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.embedded: list[EmbedRequest] = []
        self.loaded: list[tuple[str, float | None]] = []
        self.names = ["newest", "m", "hf:owner/oldest"]

    def run(self, request: Request, gone: Callable[[], bool] = never) -> Iterator[Event]:
        self._known(request.model)
        self.requests.append(request)
        if isinstance(self.script, ApiError):
            raise self.script
        return iter(self.script(request) if callable(self.script) else self.script)

    def count_tokens(self, request: Request) -> int:
        self._known(request.model)
        self.requests.append(request)
        return sum(len(message.text.split()) for message in request.messages)

    def embed(self, request: EmbedRequest) -> Embeddings:
        self._known(request.model)
        self.embedded.append(request)
        vectors = tuple((0.6, 0.8, float(i)) for i in range(len(request.inputs)))
        return Embeddings(request.model, vectors, 4 * len(vectors), 0.5, 0.25)

    def load(self, model: str, keep_alive: float | None) -> None:
        self._known(model)
        self.loaded.append((model, keep_alive))

    def models(self) -> Sequence[ModelCard]:
        return [ModelCard(name, 1_700_000_000.0 - i, "library", 8192) for i, name in enumerate(self.names)]

    def model(self, name: str) -> ModelCard:
        self._known(name)
        return next(card for card in self.models() if card.id == name)

    def _known(self, name: str) -> None:
        if name not in self.names:
            raise ApiError("not_found", f"model {name[:50]!r} not found", "model")


def app_of(service: Scripted) -> Flask:
    return create_app(service)


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """The address of a server over a real socket."""
    server = waitress.server.create_server(app, host="127.0.0.1", port=0, threads=8)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.close()
        thread.join(10)
