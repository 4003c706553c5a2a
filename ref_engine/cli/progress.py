"""How far a long job is, on stderr: a bar on a terminal, a line now and then elsewhere, or nothing.

All three are a `Progress` of ref_engine.library.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from ref_engine.cli.output import one_line, size

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Unit = Literal["bytes", "tokens", "cases"]
_SECONDS = 5.0  # between two lines


class Progress(Protocol):
    def start(self, total: int | None, label: str) -> None: ...
    def advance(self, n: int) -> None: ...
    def done(self) -> None: ...


class Nothing:
    def start(self, total: int | None, label: str) -> None: ...
    def advance(self, n: int) -> None: ...
    def done(self) -> None: ...


class Lines:
    """For logs: a line when a step begins, one every few seconds, one when it ends."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._label = ""
        self._total: int | None = None
        self._n = 0
        self._last = 0.0

    def start(self, total: int | None, label: str) -> None:
        self._label, self._total, self._n, self._last = label, total, 0, time.monotonic()
        self._print("" if total is None else self._amount(total))

    def advance(self, n: int) -> None:
        self._n += n
        if time.monotonic() - self._last >= _SECONDS:
            self._last = time.monotonic()
            self._print(f"{100 * self._n // self._total} %" if self._total else self._amount(self._n))

    def done(self) -> None:
        if self._n:
            self._print(f"{self._amount(self._n)} done")

    def _amount(self, n: int) -> str:
        return size(n) if self._unit == "bytes" else f"{n} {self._unit}"

    def _print(self, text: str) -> None:
        print(f"{one_line(self._label)}: {text}" if text else one_line(self._label), file=sys.stderr, flush=True)


class Bar:
    """For terminals, drawn by rich; it vanishes with its step."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, total: int | None, label: str) -> None:
        self.done()
        from rich.text import Text

        self._task = self._bars.add_task("", total=total, label=Text(one_line(label)))

    def advance(self, n: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, n)

    def done(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


@contextmanager
def progress(unit: Unit = "bytes", *, quiet: bool = False, lines: bool = True) -> Iterator[Progress]:
    """quiet: nothing at all. lines: say something even where stderr is not a terminal."""
    if quiet or not (lines or sys.stderr.isatty()):
        yield Nothing()
    elif not sys.stderr.isatty():
        yield Lines(unit)
    else:
        with _rich_bars(unit) as bars:
            yield Bar(bars)


def _rich_bars(unit: Unit) -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Label(ProgressColumn):
        """The label as it is, not as markup."""

        def render(self, task: Task) -> Text:
            label: Text = task.fields["label"]
            return label

    amounts = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)
    label = Label(table_column=Column(no_wrap=True, overflow="ellipsis", max_width=26))
    return Progress(label, BarColumn(20), *amounts, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
