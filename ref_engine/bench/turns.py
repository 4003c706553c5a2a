"""Processes in turn, and what their times say: medians, and how far the runs lie apart."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ref_engine.bench.works import Work
from ref_engine.errors import RefEngineError
from ref_engine.files.gguf import open_gguf
from ref_engine.quant.rows import CacheType

PEERS = ("llama-cpp", "ik-llama", "numpy")
_PACKAGES = {"llama-cpp": "llama-cpp-python", "ik-llama": "ik-llama-cpp-python"}


@dataclass(frozen=True)
class Side:
    """One engine: its name, the Python that has it, and what its processes are told."""

    name: str
    python: str
    threads: int
    backend: str | None = None
    activations: str = "q8"
    cache_type: CacheType = "f16"
    without_amx: bool = False
    gpu_layers: int | None = None
    experts_on: str | None = None

    def command(self, model: Path, works: Sequence[Work], warm: int) -> list[str]:
        job = {
            "model": str(model), "warm": warm, "works": [work.as_dict() for work in works], "threads": self.threads,
            "engine": self.name, "backend": self.backend, "activations": self.activations,
            "cache_type": self.cache_type, "without_amx": self.without_amx, "gpu_layers": self.gpu_layers,
            "experts_on": self.experts_on,
        }  # fmt: skip
        script = (
            [str(Path(__file__).with_name("llama.py"))] if self.name in _PACKAGES else ["-m", "ref_engine.bench.ours"]
        )
        return [self.python, *script, json.dumps(job)]


@dataclass
class Times:
    """Of one engine: seconds of each work by its name, one entry a run; seconds to load; bytes at the most."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)
    peak: int = 0
    without_amx: bool = False

    def rate(self, work: Work) -> float:
        """Tokens a second, or seconds for `first`; the median of the runs."""
        middle = statistics.median(self.seconds[work.name])
        return middle if work.kind == "first" else work.counted / middle

    def spread(self, work: Work) -> tuple[float, float]:
        """The slowest and the fastest run, in the same unit."""
        rates = [s if work.kind == "first" else work.counted / s for s in self.seconds[work.name]]
        return min(rates), max(rates)


def ratio(ours: Times, theirs: Times, work: Work) -> float:
    """How many times as fast we are, of medians."""
    return statistics.median(theirs.seconds[work.name]) / statistics.median(ours.seconds[work.name])


def in_turn(
    sides: Sequence[Side], model: Path, works: Sequence[Work], runs: int, advance: Callable[[str], None]
) -> dict[str, Times]:
    """Every side does every work `runs` times, A B A B; `first` in a process that does nothing else.

    Raises RefEngineError where a process fails, with what it said last.
    """
    found = {side.name: Times() for side in sides}
    current, warm = list(sides), warm_tokens(model)
    groups = [[work] for work in works if work.kind == "first"]
    rest = [work for work in works if work.kind != "first"]
    groups += [rest] if rest else []
    for group in groups:
        for _ in range(runs):
            for i, side in enumerate(current):
                advance(f"{side.name}: {', '.join(work.name for work in group)}")
                result, current[i] = _run(side, model, group, warm)
                times = found[side.name]
                for work, seconds in zip(group, result["seconds"], strict=True):
                    times.seconds.setdefault(work.name, []).append(seconds)
                times.load.append(result["load"])
                times.peak = max(times.peak, result["peak"])
                times.without_amx = current[i].without_amx
    return found


def warm_tokens(model: Path) -> int:
    """How many tokens each process computes before it measures, so that each weight has been read and, where an engine
    does that, repacked: of a mixture enough for all experts. Raises GGUFError for what is no model file."""
    with open_gguf(model) as file:
        return 512 if file.metadata.get(f"{file.metadata.get('general.architecture')}.expert_count") else 32


def _run(side: Side, model: Path, works: Sequence[Work], warm: int) -> tuple[dict[str, Any], Side]:
    """What one process found, and the side as it had to be run: without AMX, if its build crashes with it."""
    done = subprocess.run(side.command(model, works, warm), capture_output=True, text=True, check=False)
    if done.returncode < 0 and side.name in _PACKAGES and not side.without_amx and sys.platform == "linux":
        return _run(replace(side, without_amx=True), model, works, warm)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        if "No module named" in said and side.name in _PACKAGES:
            said += f"; it takes {_PACKAGES[side.name]} in the Python that --peer-python names"
        raise RefEngineError(f"{side.name} failed: {said[:300]}")
    try:
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise RefEngineError(f"{side.name} printed no result") from error
    return result, side
