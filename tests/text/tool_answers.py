"""Reading answers in tests: the parts of one folded, and the same answer cut at every place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ref_engine.text.chat.tools import (
    CallArguments,
    CallEnd,
    CallStart,
    Part,
    Text,
    Thinking,
    ToolFormat,
)


@dataclass(frozen=True)
class Tool:
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    description: str = "a tool"
    strict: bool = True


def schema(required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    """The schema of an object; a property is given by its type or its schema."""
    described = {name: {"type": kind} if isinstance(kind, str) else kind for name, kind in properties.items()}
    return {"type": "object", "properties": described, "required": list(required)}


WEATHER = Tool(
    "get_weather", schema(["city"], city="string", days="integer", tags={"type": "array", "items": {"type": "string"}})
)
PING = Tool("ping", schema())


@dataclass(frozen=True)
class Answer:
    text: str = ""
    thinking: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    errors: tuple[str, ...] = ()


def fold(parts: Iterable[Part]) -> Answer:
    """All parts of an answer together. Checks that each call begins, goes on and ends in this order, one at a time."""
    text, thinking, open_call = "", "", ""
    pieces: list[str] = []
    calls: list[tuple[str, Any]] = []
    errors: list[str] = []
    for part in parts:
        match part:
            case Text(piece):
                assert piece and not open_call
                text += piece
            case Thinking(piece):
                assert piece and not open_call
                thinking += piece
            case CallStart(index, name):
                assert index == len(calls) and not open_call and name
                open_call, pieces = name, []
            case CallArguments(index, piece):
                assert index == len(calls) and open_call and piece
                pieces.append(piece)
            case CallEnd(index, arguments, error):
                assert index == len(calls) and open_call
                if error is None:
                    assert json.loads("".join(pieces)) == arguments
                else:
                    errors.append(error)
                calls.append((open_call, dict(arguments)))
                open_call = ""
    assert not open_call
    return Answer(text, thinking, tuple(calls), tuple(errors))


def read(format: ToolFormat, answer: str, tools: Sequence[Tool], prompt: str = "", cuts: Sequence[int] = ()) -> Answer:
    """An answer as its parser sees it when it comes in these pieces."""
    parser = format.parser(tools, prompt=prompt)
    parts: list[Part] = []
    for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True):
        parts += parser.push(answer[start:end])
    return fold([*parts, *parser.flush()])


def read_every_way(format: ToolFormat, answer: str, tools: Sequence[Tool], prompt: str = "", step: int = 1) -> Answer:
    """The answer at once; asserts that cutting it everywhere, or at any place (every `step`th), makes no difference."""
    whole = read(format, answer, tools, prompt)
    for cut in range(1, len(answer), step):
        assert read(format, answer, tools, prompt, [cut]) == whole, f"cut before {answer[cut:]!r}"
    assert read(format, answer, tools, prompt, range(1, len(answer))) == whole
    return whole
