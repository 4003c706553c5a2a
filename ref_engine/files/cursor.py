"""A position in a byte buffer that cannot leave it: every field of a header is read through here."""

import mmap
import os
import struct
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from ref_engine.errors import GGUFError

MAX_HEADER_BYTES = 1 << 28
"""Metadata and tensor table together. The largest vocabularies known need a tenth of it."""

MAX_NAME_BYTES = 65535
"""Bytes of a metadata key (the GGUF specification's limit) or of a tensor name."""

_U32 = struct.Struct("<I").unpack_from
_U64 = struct.Struct("<Q").unpack_from
_WINDOW = 1 << 16
_STRIDE = 1000


def show(text: str) -> str:
    """A key or a name for an error message: quoted, in one line, shortened."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def show_path(path: os.PathLike[str]) -> str:
    """A path for an error message: as it is, or quoted where it would break the line."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


class Cursor:
    """Little-endian reads from `data`, each checked against its end.

    Every method takes `what`, the thing being read, for the error: a GGUFError that begins with `label`, the
    name of the file.
    """

    def __init__(self, data: mmap.mmap | bytes, label: str) -> None:
        self.data = data
        self.label = label
        self.pos = 0
        self.end = min(len(data), MAX_HEADER_BYTES)

    def fail(self, message: str) -> NoReturn:
        raise GGUFError(f"{self.label}: {message}")

    def need(self, nbytes: int, what: str) -> None:
        """Fail unless `nbytes` more bytes are there."""
        if nbytes <= self.end - self.pos:
            return
        if self.end < len(self.data):
            self.fail(f"{what} at byte {self.pos} takes the header over {MAX_HEADER_BYTES} bytes, the limit")
        left = self.end - self.pos
        self.fail(f"truncated or damaged: {what} at byte {self.pos} needs {nbytes} bytes and {left} are left")

    def u32(self, what: str) -> int:
        self.need(4, what)
        value: int = _U32(self.data, self.pos)[0]
        self.pos += 4
        return value

    def u64(self, what: str) -> int:
        self.need(8, what)
        value: int = _U64(self.data, self.pos)[0]
        self.pos += 8
        return value

    def unpack(self, layout: str, what: str) -> tuple[int, ...]:
        """The integers of a `struct` layout."""
        start = self.pos
        self.skip(struct.calcsize(layout), what)
        return struct.unpack_from(layout, self.data, start)

    def skip(self, nbytes: int, what: str) -> None:
        self.need(nbytes, what)
        self.pos += nbytes

    def take(self, nbytes: int, what: str) -> bytes:
        """The next `nbytes` bytes, as a copy."""
        self.skip(nbytes, what)
        return self.data[self.pos - nbytes : self.pos]

    def name(self, what: str) -> str:
        """A key or tensor name: not empty, at most MAX_NAME_BYTES of valid UTF-8."""
        nbytes = self.u64(f"the length of {what}")
        if not 0 < nbytes <= MAX_NAME_BYTES:
            self.fail(f"{what} is {nbytes} bytes long; 1 to {MAX_NAME_BYTES} are allowed")
        raw = self.take(nbytes, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"{what} is not valid UTF-8 (byte {error.start} of it)")

    def strings(self, count: int, what: str) -> npt.NDArray[np.int64]:
        """Pass over `count` strings, each a u64 length and that many bytes.

        Returns where the bytes of each begin, int64 (count,). String i ends 8 bytes before string i + 1.
        """
        self.need(8 * count, what)
        found: list[npt.NDArray[np.int64]] = []
        stride = _STRIDE
        while count:
            starts = self._short_strings(count)
            if starts.size < _STRIDE:
                found.append(starts)
                count -= starts.size
                starts = self._any_strings(min(count, stride), what)
                stride *= 2  # the more often the fast path fails, the less often it is tried
            found.append(starts)
            count -= starts.size
        return np.concatenate(found) + 8 if found else np.empty(0, np.int64)

    def _short_strings(self, count: int) -> npt.NDArray[np.int64]:
        """Positions of the next strings as long as they are seen to be shorter than 256 bytes.

        The length of such a string is one byte followed by seven zeros. Wherever these stand in the next
        window is a candidate, and a chain in which every candidate points at the next is the answer: no loop
        over strings. A long string, or one with zeros in it, ends the chain; `_any_strings` steps over it.
        """
        if count < 64 or self.end - self.pos < 64:
            return np.empty(0, np.int64)
        window = np.frombuffer(self.data[self.pos : min(self.pos + _WINDOW, self.end)], np.uint8)
        nonzero = window[1:-1] | window[2:]
        nonzero = nonzero[:-2] | nonzero[2:]
        nonzero = nonzero[:-3] | nonzero[3:]  # [i]: any of the bytes i + 1 .. i + 7
        starts = np.flatnonzero(nonzero == 0)
        if starts.size < 2 or starts[0] != 0:
            return np.empty(0, np.int64)
        follows = starts + 8 + window[starts]
        breaks = np.flatnonzero(follows[:-1] != starts[1:])
        n = min(int(breaks[0]) if breaks.size else starts.size - 1, count)
        starts = starts[:n] + self.pos
        # Each string taken is followed by a candidate inside the window, so that pos stays before the end.
        self.pos += int(follows[n - 1]) if n else 0
        return starts

    def _any_strings(self, count: int, what: str) -> npt.NDArray[np.int64]:
        """Positions of the next `count` strings, one step each."""
        data, pos, last = self.data, self.pos, self.end - 8
        starts = []
        for _ in range(count):
            if pos > last:
                break
            starts.append(pos)
            pos += 8 + _U64(data, pos)[0]
        if len(starts) < count or pos > self.end:
            self.pos = starts[-1] if starts else self.pos
            self.need(pos + 8 - self.pos, f"a string of {what}")  # more than there is in either case
        self.pos = pos
        return np.array(starts, np.int64)
