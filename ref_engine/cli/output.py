"""What commands print: tables, JSON, sizes, and text from models and files made safe for a terminal."""

from __future__ import annotations

import io
import json
import math
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

# Control characters but newline and tab: a model's text or a file's metadata must not steer the terminal.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def ready_streams() -> None:
    """A terminal that is not UTF-8 shows `?` for what it cannot, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def one_line(text: str) -> str:
    """The text on one line, control characters as escapes."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in joined)


def shown(text: str) -> str:
    """Text for a terminal: without control characters but newline and tab. For a file or a pipe: as it is."""
    return text.translate(_CONTROLS) if sys.stdout.isatty() else text


def write(text: str, stream: TextIO | None = None) -> None:
    """Text as a model makes it, at once."""
    stream = stream or sys.stdout
    stream.write(text.translate(_CONTROLS) if stream.isatty() else text)
    stream.flush()


def say(text: str = "") -> None:
    """One line on stdout, through Python's own stream, whose encoding and error handling `ready_streams` settled."""
    print(text)


def clean(text: str) -> str:
    """Text as UTF-8 can hold it: bytes of an argument or a file that were no UTF-8 become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def emit_json(value: object) -> None:
    """One JSON document, ASCII only, so that no terminal or locale can damage it."""
    say(json.dumps(_plain(value), indent=2, allow_nan=False))


def _plain(value: object) -> object:
    """Without what JSON lacks: NumPy arrays and scalars, lone surrogates; NaN and infinity become null."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Columns as wide as their widest cell, two spaces apart; those numbered in `right` end flush.

    Every cell is one line. Nothing is cut, whatever the width of the terminal: output is for pipes as well.
    """
    from rich.cells import cell_len  # some characters take two columns

    lines = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = []
        for i, cell in enumerate(line):
            space = " " * (widths[i] - cell_len(cell))
            cells.append(space + cell if i in right else cell + space)
        say("  ".join(cells).rstrip())


def size(nbytes: int) -> str:
    """98362432 -> `98.4 MB`, in powers of a thousand as disks and Ollama count."""
    for unit, letter in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.1f} {letter}"
    return f"{nbytes} B"


def count(n: int) -> str:
    """134515008 -> `134.5M`"""
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n >= unit:
            return f"{n / unit:.1f}{letter}"
    return str(n)


def piece(spelling: bytes) -> str:
    """The bytes of a token as Python would write them: 'text', or b'..' where they are no whole characters."""
    try:
        return repr(spelling.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(spelling)


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`, renamed to it at the end; removed if anything fails on the way."""
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def read_stdin() -> str:
    """All of standard input as UTF-8, bytes that are none as U+FFFD."""
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def read_text(path: str) -> str:
    """A file, or standard input for "-"."""
    return read_stdin() if path == "-" else Path(path).read_bytes().decode("utf-8", "replace")
