"""How much memory this machine lets a program use."""

from __future__ import annotations

import os
from pathlib import Path


def total_memory() -> int | None:
    """Bytes: physical memory, or what a control group (a container) limits it to. None where it cannot be told."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None
    limits = [_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    return min([physical, *(limit for limit in limits if limit)])


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, from Linux; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _number(path: Path) -> int | None:
    """The whole number in a file; None where there is no such file or it holds a word such as `max`."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
