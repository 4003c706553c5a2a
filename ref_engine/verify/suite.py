"""All cases for what is to be verified, in the order of the data flow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ref_engine.verify.case import Case
from ref_engine.verify.engines.command import CommandEngine
from ref_engine.verify.engines.ours import Backend, OurEngine
from ref_engine.verify.golden import Golden
from ref_engine.verify.packs import ops, quant, real, rope, sampling, small, text


def backend_suite(golden: Golden, backend: Backend, scratch: Path, limit: float | None = None) -> list[Case]:
    """Operations, weight types, whole models; and what does not depend on a backend: tokenizers, templates, sampling.

    scratch: a folder for models that are rebuilt. limit: NMSE to ask of logits instead of the golden data's own.
    """
    found = [*quant.cases(golden, backend), *ops.cases(golden, backend), *rope.cases(golden)]
    if "f32" in backend.modes:
        found += small.cases(golden, OurEngine(backend, "f32"), scratch, limit)
    found += small.backend_cases(golden, backend, scratch)
    for mode in backend.modes:
        found += real.cases(golden, OurEngine(backend, mode))
        found += real.backend_cases(golden, backend, mode)
    return _distinct([*found, *text.cases(golden), *sampling.cases(golden)])


def command_suite(golden: Golden, engine: CommandEngine, scratch: Path, limit: float | None = None) -> list[Case]:
    """Whole models: what a program can be asked that takes a file and token ids."""
    return _distinct([*small.cases(golden, engine, scratch, limit), *real.cases(golden, engine)])


def _distinct(cases: Sequence[Case]) -> list[Case]:
    """The cases, once no two were found to have one id."""
    twice = [id for id, n in Counter(case.id for case in cases).items() if n > 1]
    if twice:
        raise ValueError(f"several cases are called {twice[0]}")
    return list(cases)
