"""Reading a text that arrives in pieces, with code that looks as if all of it were there.

The methods are generators: they yield where they need more of the text than has come, and go on when it has. What they
find depends on the text alone and not on how it was cut; a caller writes `found = yield from reader.until(...)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]

_SPACE = re.compile(r"\s*")
_JSON_ENDS = re.compile(r"[\s,\]}:<`|]")  # what may follow a number or word of JSON, in any of the formats


class Reader:
    """The text so far, and the place up to which it has been read."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._ended = False
        self._marks = 0

    # -- the writer's side

    def push(self, text: str) -> None:
        if not self._marks:  # what has been read can go
            self._text, self._at = self._text[self._at :], 0
        self._text += text

    def end(self) -> None:
        self._ended = True

    # -- going back

    def mark(self) -> int:
        """Keep the text from here on, until `release` or `rewind`."""
        if not self._marks:
            self._text, self._at = self._text[self._at :], 0
        self._marks += 1
        return self._at

    def release(self) -> None:
        self._marks -= 1

    def rewind(self, mark: int) -> None:
        self._at = mark
        self._marks -= 1

    # -- the reader's side

    @property
    def rest(self) -> str:
        """What has come and has not been read."""
        return self._text[self._at :]

    def more(self) -> Steps[bool]:
        """Wait for more text; False where there will be none."""
        if self._ended:
            return False
        yield
        return True

    def peek(self, n: int = 1) -> Steps[str]:
        """The next n characters; fewer at the end."""
        while len(self._text) - self._at < n:
            if not (yield from self.more()):
                break
        return self._text[self._at : self._at + n]

    def take(self, n: int) -> str:
        taken = self._text[self._at : self._at + n]
        self._at += len(taken)
        return taken

    def space(self) -> Steps[str]:
        """Skip white space."""
        skipped = ""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None  # it matches nothing, too
            self._at = found.end()
            skipped += found[0]
            if self._at < len(self._text) or not (yield from self.more()):
                return skipped

    def one_of(self, options: Sequence[str]) -> Steps[str | None]:
        """The longest option that the text goes on with, which is then read; None where there is none."""
        while True:
            rest = self._text[self._at : self._at + max(map(len, options), default=0)]
            fitting = [option for option in options if rest.startswith(option)]
            longer = [option for option in options if len(option) > len(rest) and option.startswith(rest)]
            if not longer or not (yield from self.more()):
                best = max(fitting, key=len, default=None)
                self._at += len(best or "")
                return best

    def until(self, tags: Sequence[str], emit: Callable[[str], None], limit: int | None = None) -> Steps[str | None]:
        """Read up to the first of the tags, and past it; what stands before it goes to `emit` as it comes.

        What may be the beginning of a tag is held back. Of several tags at one place the longest counts. None where the
        text ends without a tag, or `limit` characters have none.
        """
        tags = [tag for tag in tags if tag]
        read = 0
        while True:
            rest = self._text[self._at :]
            found = min(((place, -len(tag), tag) for tag in tags if (place := rest.find(tag)) >= 0), default=None)
            held = 0 if self._ended else _open_tail(rest, tags)
            if found is not None and found[0] < len(rest) - held:
                # nothing before it, or longer than it, can still become a tag
                if limit is not None and read + found[0] > limit:
                    return None
                emit(rest[: found[0]])
                self._at += found[0] + len(found[2])
                return found[2]
            safe = len(rest) - held
            if limit is not None and read + safe > limit:
                return None
            emit(rest[:safe])
            self._at += safe
            read += safe
            if not (yield from self.more()):
                return None

    def json(self, emit: Callable[[str], None]) -> Steps[bool]:
        """Read one JSON value and emit its text as it comes; False where the text ends inside it.

        Only brackets and strings are followed; whether it is JSON is for the parser of the whole.
        """
        first = yield from self.peek()
        if first in ("{", "["):
            return (yield from self._nested(emit))
        if first == '"':
            return (yield from self._string(emit))
        while True:
            found = _JSON_ENDS.search(self._text, self._at)
            end = len(self._text) if found is None else found.start()
            emit(self._text[self._at : end])
            self._at = end
            if found is not None:
                return True
            if not (yield from self.more()):
                return True

    def balanced(self, emit: Callable[[str], None]) -> Steps[bool]:
        """Read what stands in brackets, as `json` does, where strings may be in single quotes, too."""
        return (yield from self._nested(emit, "\"'"))

    def _nested(self, emit: Callable[[str], None], quotes: str = '"') -> Steps[bool]:
        depth, quoted, escaped = 0, "", False
        while True:
            start = self._at
            while self._at < len(self._text):
                char = self._text[self._at]
                self._at += 1
                if quoted:
                    if escaped:
                        escaped = False
                    elif char == "\\":
                        escaped = True
                    elif char == quoted:
                        quoted = ""
                elif char in quotes:
                    quoted = char
                elif char in "{[(":
                    depth += 1
                elif char in "}])":
                    depth -= 1
                    if depth == 0:
                        emit(self._text[start : self._at])
                        return True
            emit(self._text[start : self._at])
            if not (yield from self.more()):
                return False

    def _string(self, emit: Callable[[str], None]) -> Steps[bool]:
        emit(self.take(1))
        escaped = False
        while True:
            start = self._at
            while self._at < len(self._text):
                char = self._text[self._at]
                self._at += 1
                if escaped:
                    escaped = False
                elif char == "\\":
                    escaped = True
                elif char == '"':
                    emit(self._text[start : self._at])
                    return True
            emit(self._text[start : self._at])
            if not (yield from self.more()):
                return False


def _open_tail(text: str, tags: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a tag that has not all come."""
    longest = min(max((len(tag) for tag in tags), default=1) - 1, len(text))
    for n in range(longest, 0, -1):
        tail = text[len(text) - n :]
        if any(tag.startswith(tail) and len(tag) > n for tag in tags):
            return n
    return 0
