"""How a long job reports: a small protocol, so that a terminal bar, an HTTP stream and silence look the
same."""

from typing import Protocol


class Progress(Protocol):
    """One bar at a time. `start` may come again before `done`: the bar begins anew (a download that had
    to)."""

    def start(self, total: int | None, label: str) -> None:
        """A step begins: `total` bytes, or None where the amount is not known (waiting for something)."""

    def advance(self, n: int) -> None:
        """`n` more bytes are done, those found from an earlier run included."""

    def done(self) -> None:
        """The step is finished or given up."""


class Silent:
    """The progress of someone who does not look."""

    def start(self, total: int | None, label: str) -> None: ...

    def advance(self, n: int) -> None: ...

    def done(self) -> None: ...
