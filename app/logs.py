"""One line of JSON for each request, and for what happens between them. Prompts only where the operator asks for it."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

from .stream import dumps


class Log:
    """Writes to `out`; None: nowhere. Safe for many threads.

    `prompts`: whether `text` writes anything. Every line has `time` (UTC) and `event`.
    """

    def __init__(self, out: TextIO | None = None, *, prompts: bool = False) -> None:
        self._out = out
        self.prompts = prompts
        self._lock = threading.Lock()

    def write(self, event: str, **fields: Any) -> None:
        """Fields that are None are left out."""
        if self._out is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = dumps({"time": now, "event": event, **{k: v for k, v in fields.items() if v is not None}})
        with self._lock:
            print(line, file=self._out, flush=True)

    def text(self, event: str, **fields: Any) -> None:
        """As `write`, for what people wrote: only where the operator asked for it."""
        if self.prompts:
            self.write(event, **fields)

    def trouble(self, request_id: str | None, report: str) -> None:
        """A defect of this program, with its traceback."""
        self.write("defect", request_id=request_id, traceback=report)


def stderr_log(prompts: bool = False) -> Log:
    return Log(sys.stderr, prompts=prompts)
