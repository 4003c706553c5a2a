"""What the readers of calls share: where calls go to, how their arguments are checked, what a syntax is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ref_engine.text.chat.tools.parts import Call, CallArguments, CallEnd, CallStart, Part, Tool
from ref_engine.text.chat.tools.reader import Reader, Steps
from ref_engine.text.grammar.lark import Literals

MAX_NAME = 256  # characters of a call's header; a longer one is no header


class Session:
    """One answer being read: the reader, the tools by name, and the parts that are ready."""

    def __init__(self, reader: Reader, tools: Mapping[str, Tool], put: Callable[[Part], None]) -> None:
        self.reader = reader
        self.tools = tools
        self.n_calls = 0
        self._put = put
        self._open: list[str] | None = None  # the pieces of the open call
        self._mark: int | None = None

    def hold(self) -> None:
        """From here on the text may turn out to be no call: keep it until one starts."""
        if self._mark is None:
            self._mark = self.reader.mark()

    def back(self) -> None:
        """No call has started since `hold`: read on from there. No harm where one has."""
        if self._mark is not None:
            self.reader.rewind(self._mark)
            self._mark = None

    def start(self, name: str) -> None:
        if self._mark is not None:
            self.reader.release()
            self._mark = None
        self._put(CallStart(self.n_calls, name))
        self._open = []

    def arguments(self, piece: str) -> None:
        if piece and self._open is not None:
            self._open.append(piece)
            self._put(CallArguments(self.n_calls, piece))

    def end(self, error: str | None = None) -> None:
        """The open call is over; its arguments are checked here."""
        text = "".join(self._open or ())
        arguments, problem = parse_object(text)
        self._put(CallEnd(self.n_calls, arguments, error or problem))
        self.n_calls += 1
        self._open = None

    def whole(self, name: str, text: str) -> None:
        """A call of which everything is known; `text` is the JSON of its arguments."""
        self.start(name)
        self.arguments(text)
        self.end()

    @property
    def in_call(self) -> bool:
        return self._open is not None


class Syntax(Protocol):
    """How a family of models writes calls."""

    @property
    def triggers(self) -> Sequence[str]:
        """Texts with which a call, or what is around calls, begins."""

    @property
    def dropped(self) -> Sequence[str]:
        """Texts around calls that are not shown and say nothing more."""

    @property
    def bare(self) -> bool:
        """Whether an answer can be calls from its first character, without a tag."""

    def read(self, trigger: str, session: Session) -> Steps[bool]:
        """Read what follows a trigger ("" for a bare answer); False for no call, with nothing put into the session."""

    def write(self, calls: Sequence[Call]) -> str:
        """Calls as the model is to write them, for a conversation without a template of its own."""

    def lark(self, tools: Sequence[Tool], most: int, literal: Literals) -> str:
        """A grammar of 1 to `most` calls from its rule `calls`; `literal` spells a text of the grammar."""


def _bounded(text: str) -> float:
    """The nearest number that a double holds. A schema's `number` may be written 1e999, which no reader can take
    (RFC 8259, section 6, leaves the range to them)."""
    return max(-sys.float_info.max, min(sys.float_info.max, float(text)))


def _whole(text: str) -> int:
    return int(text) if len(text) < 4000 else int(_bounded(text))  # Python's own limit is 4300 digits


def read_json(text: str) -> Any:
    """A JSON value of a call; numbers beyond a double are its largest. Raises ValueError and RecursionError."""
    return json.loads(text, parse_float=_bounded, parse_int=_whole)


def parse_object(text: str) -> tuple[Mapping[str, Any], str | None]:
    """A JSON object and None, or an empty one and what is wrong."""
    try:
        value = read_json(text)
        json.dumps(value, allow_nan=False).encode()  # NaN and Infinity are no JSON
    except (ValueError, RecursionError) as error:
        return {}, f"the arguments are no JSON: {error}" if text.strip() else "the arguments are missing"
    if not isinstance(value, dict):
        return {}, f"the arguments are no object but {json.dumps(value)[:60]}"
    return value, None


def compact(value: object) -> str:
    """JSON as most models write it."""
    return json.dumps(value, ensure_ascii=False)
