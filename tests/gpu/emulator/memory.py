"""Copies of arrays with forbidden pages around them."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FILL = 0xA5
_FORBIDDEN = 64 * _PAGE  # on either side


class Guarded:
    """The memory of the arrays of one launch. Arrays that share bytes share them here too."""

    def __init__(self, arrays: list[np.ndarray[Any, Any]]) -> None:
        spans = sorted(byte_bounds(a) for a in arrays if a.size)
        joined: list[list[int]] = []
        for first, end in spans:
            if joined and first < joined[-1][1]:
                joined[-1][1] = max(end, joined[-1][1])
            else:
                joined.append([first, end])
        self.parts = [_Part(first, end) for first, end in joined]

    def address(self, array: np.ndarray[Any, Any]) -> int:
        if not array.size:
            return 0
        at = array.ctypes.data
        return next(at - p.first + p.copy for p in self.parts if p.first <= at < p.end)

    def give_back(self) -> bool:
        """Copies everything to where it came from. False if something was written behind an array."""
        return all([p.give_back() for p in self.parts])


class _Part:
    def __init__(self, first: int, end: int) -> None:
        self.first, self.end, size = first, end, end - first
        whole = -(-(size + 16) // _PAGE) * _PAGE
        self.map = mmap.mmap(-1, whole + 2 * _FORBIDDEN)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        last = base + _FORBIDDEN + whole
        for forbidden in (base, last):
            if _libc.mprotect(forbidden, _FORBIDDEN, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.copy = last - size
        self.copy -= (self.copy - first) % 16  # aligned as the array is
        self.slack = last - self.copy - size
        ctypes.memset(self.copy + size, _FILL, self.slack)
        ctypes.memmove(self.copy, first, size)

    def give_back(self) -> bool:
        size = self.end - self.first
        before = ctypes.string_at(self.first, size)
        if ctypes.string_at(self.copy, size) != before:
            ctypes.memmove(self.first, self.copy, size)
        return ctypes.string_at(self.copy + size, self.slack) == bytes([_FILL]) * self.slack
