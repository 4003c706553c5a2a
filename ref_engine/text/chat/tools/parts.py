"""What an answer is made of once it has been read: text, thinking, calls of tools; and what a tool is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Tool(Protocol):
    """A function that the model may call; `parameters` is a JSON schema."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Thinking:
    text: str


@dataclass(frozen=True)
class CallStart:
    """`index` counts the calls of an answer from 0."""

    index: int
    name: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of the arguments as JSON text. The pieces of a call, joined, are what the model wrote."""

    index: int
    json: str


@dataclass(frozen=True)
class CallEnd:
    """`arguments`: the pieces, parsed; empty where `error` says why they are no JSON object."""

    index: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


Part = Text | Thinking | CallStart | CallArguments | CallEnd


@dataclass(frozen=True)
class Call:
    """A whole call, as conversations hold it."""

    name: str
    arguments: Mapping[str, Any]
