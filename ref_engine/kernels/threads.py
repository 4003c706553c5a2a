"""How many threads are worth having: one for each physical core that this process may use."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path


def physical_cores() -> int:
    """Cores, not hyper-threads, within the process's affinity and the container's share of the processor."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    siblings = {_siblings(cpu) for cpu in cpus}
    return max(1, min(len(siblings), _quota()))


def _siblings(cpu: int) -> str:
    """A name for the core that a logical processor belongs to."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Whole processors that the control group grants, rounded up; as good as unlimited where none is set."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such group, or "max"
        return 1 << 16


def usable_threads(asked: int | None) -> int:
    """`asked`, or a thread for each core; never more than cores, which only slows down: then a warning says so."""
    cores = physical_cores()
    if asked is not None and asked > cores:
        warnings.warn(f"n_threads {asked}: this process has {cores} cores, using {cores}", stacklevel=2)
    return cores if asked is None else min(asked, cores)
