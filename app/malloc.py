"""Memory that goes back to the system when a model leaves. glibc keeps what was freed, in a pool for each thread."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

_M_ARENA_MAX = -8  # malloc.h of glibc
_ARENAS = 2


def share_pools() -> None:
    """Two pools for all threads instead of eight for each core; to be called before there are threads."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Collect what hangs in cycles, and return free pages to the system."""
    gc.collect()
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> Any:
    """The C library where it is glibc; None elsewhere, where there is nothing to do."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "gnu_get_libc_version") else None
