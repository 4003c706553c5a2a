"""An advisory lock on a file: held by one process or thread at a time, freed by the system when its holder
dies."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ref_engine.errors import StoreError

if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _is_at(fd: int, path: Path) -> bool:
    """Whether `path` still is the open file: its last holder may have removed it while we waited."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def file_lock(path: Path, waiting: Callable[[], None] | None = None, seconds: float | None = None) -> Iterator[None]:
    """Holds the lock at `path`, made where absent and removed after use.

    `waiting` is called once if someone else holds it. After `seconds` (None: without end) StoreError is
    raised. Polling instead of a blocking call keeps Ctrl-C working on every system.
    """
    began, told, pause = time.monotonic(), False, 0.002
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"{path}: cannot lock: {error.strerror}") from error
        if _try_lock(fd) and _is_at(fd, path):
            break
        os.close(fd)
        if seconds is not None and time.monotonic() - began >= seconds:
            raise StoreError(f"{path}: held by another process")
        if waiting is not None and not told:
            waiting()
            told = True
        time.sleep(pause)
        pause = min(0.1, 2 * pause)
    try:
        yield
    finally:
        if sys.platform != "win32":  # Windows does not remove open files; there the empty file stays
            path.unlink(missing_ok=True)
        os.close(fd)
