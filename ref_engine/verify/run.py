"""Choosing cases and running them, each on its own: what one does leaves the others as they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from ref_engine.errors import RefEngineError
from ref_engine.verify.case import Case, Finding, NotHere, failed
from ref_engine.verify.golden import GoldenError

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Result:
    case: Case
    status: Status
    finding: Finding
    seconds: float


def choose(cases: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """Cases whose id matches one of the globs (`*` crosses slashes), all where there is none, in their order.

    Raises RefEngineError for a pattern that matches nothing: a misspelt one would otherwise pass.
    """
    for pattern in patterns:
        if not any(fnmatchcase(case.id, pattern) for case in cases):
            raise RefEngineError(f"no case matches {pattern!r}; --list shows them all")
    return [case for case in cases if not patterns or any(fnmatchcase(case.id, p) for p in patterns)]


def run_case(case: Case, clock: Callable[[], float] = time.perf_counter) -> Result:
    """Run one case. Raises GoldenError alone: whatever else goes wrong is the case's failure."""
    start = clock()
    try:
        finding = case.run()
        status: Status = "passed" if finding.passed else "failed"
    except GoldenError:
        raise
    except NotHere as reason:
        finding, status = Finding(True, str(reason)), "skipped"
    except RefEngineError as error:
        finding, status = failed(str(error)), "failed"
    except Exception as error:  # noqa: BLE001 - a backend under test may raise anything; that is what is reported
        finding, status = failed(f"{type(error).__name__}: {error}"), "failed"
    return Result(case, status, finding, clock() - start)


def run_cases(cases: Sequence[Case], fail_fast: bool = False) -> Iterator[Result]:
    """Results as they come, up to the first failure where `fail_fast` is set."""
    for case in cases:
        result = run_case(case)
        yield result
        if fail_fast and result.status == "failed":
            return
