"""What the dialects ask of the server: one object, so that their tests can put a scripted one in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .messages import Embeddings, EmbedRequest, Event, Request


def never() -> bool:
    """For requests whose client cannot leave."""
    return False


@dataclass(frozen=True)
class ModelCard:
    """One row of a list of models. `created` is Unix time in seconds; `owner` a name for people."""

    id: str
    created: float
    owner: str
    n_ctx: int | None = None


class Service(Protocol):
    """All that a dialect needs. Every method raises ApiError."""

    def run(self, request: Request, gone: Callable[[], bool] = never) -> Iterator[Event]:
        """Events of an answer; Start comes first, Done (or Failed) last, of each choice.

        What is wrong with the request is raised here, before there is an iterator, so that a stream need not begin.
        `gone` says whether the client has left; the work ends within a token of that. Closing the iterator ends it too.
        """

    def count_tokens(self, request: Request) -> int:
        """Tokens of the prompt that `run` would read: Usage.prompt_tokens. Nothing is computed with them."""

    def embed(self, request: EmbedRequest) -> Embeddings: ...

    def load(self, model: str, keep_alive: float | None) -> None:
        """Load a model without asking it anything; where keep_alive is 0, unload it as soon as it is idle."""

    def models(self) -> Sequence[ModelCard]:
        """Newest first."""

    def model(self, name: str) -> ModelCard:
        """Raises ApiError "not_found"."""
