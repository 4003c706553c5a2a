"""Files that appear whole or not at all: written under a temporary name, synced, renamed.

A crash or a SIGKILL between any two system calls leaves either the old state or the new one, plus at most a
temporary file.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from ref_engine.errors import StoreError

CHUNK = 1 << 20  # bytes per read: large enough for the hash to run at full speed


def land(temporary: Path, target: Path) -> None:
    """Syncs `temporary`, a file on the same file system, and renames it to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
    sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """Makes a rename last through a power cut. Windows has no such call and needs none."""
    if sys.platform != "win32":
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_atomic(target: Path, data: bytes, temporary: Path) -> None:
    """`data` at `target`, by way of `temporary`."""
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(data)
    land(temporary, target)


def write_hashed(
    chunks: Iterable[bytes], temporary: Path, limit: int, what: str, advance: Callable[[int], None]
) -> tuple[str, int]:
    """Writes `chunks` to `temporary`; returns SHA-256 in hex and the number of bytes.

    StoreError that names `what` when there are more than `limit` bytes; the temporary file is then removed.
    """
    digest, total = hashlib.sha256(), 0
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                total += len(chunk)
                if total > limit:
                    raise StoreError(f"{what}: more than {limit} bytes")
                digest.update(chunk)
                file.write(chunk)
                advance(len(chunk))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest.hexdigest(), total


def file_chunks(path: Path) -> Iterable[bytes]:
    """The bytes of a file, CHUNK at a time."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def file_sha256(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    for chunk in file_chunks(path):
        digest.update(chunk)
        if advance is not None:
            advance(len(chunk))
    return digest.hexdigest()
