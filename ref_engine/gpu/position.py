"""The position of a token whose pass is recorded: a number that only the device knows, since it changes each time."""

from __future__ import annotations

from typing import Any


class NotRecorded(Exception):
    """A pass has something that cannot be done again by the device alone. Says what."""


class Position:
    """In the place of a pass's positions and token ids. value: (1,) int64 on the device.

    Whoever would compute with it on the host gets NotRecorded, so that no number of one pass stays in the next.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def _refuse(self, *args: Any, **given: Any) -> Any:
        raise NotRecorded("a position or token that the host computes with")

    __array__ = __getitem__ = __len__ = __iter__ = __int__ = __index__ = __bool__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __mod__ = __neg__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse

    def __getattr__(self, name: str) -> Any:
        self._refuse()
