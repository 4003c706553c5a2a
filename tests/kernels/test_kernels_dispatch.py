"""Choosing an instruction set and a number of threads; an engine without kernels says so."""

import subprocess
import sys

import pytest

import ref_engine
from ref_engine import backends, compat
from ref_engine.errors import RefEngineError
from ref_engine.kernels import dispatch, threads

needs_kernels = pytest.mark.skipif(not compat.has_kernels, reason="the kernels were not compiled")


@needs_kernels
def test_the_best_is_taken_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REF_ENGINE_ISA", raising=False)
    here = dispatch.available()
    assert here[0] == "baseline" and dispatch.table().name == here[-1]
    for isa in here:
        monkeypatch.setenv("REF_ENGINE_ISA", isa)
        assert dispatch.table().name == isa
    assert dispatch.table("baseline").name == "baseline"


@needs_kernels
def test_unknown_and_missing_instruction_sets_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REF_ENGINE_ISA", "sse9")
    with pytest.raises(RefEngineError, match="unknown instruction set 'sse9'"):
        backends.get_ops("native", "q8")
    monkeypatch.setattr(dispatch, "available", lambda: ("baseline",))
    monkeypatch.setenv("REF_ENGINE_ISA", "avx2")
    with pytest.raises(RefEngineError, match="avx2 is not available here"):
        backends.get_ops("native", "q8")


def test_without_kernels_the_default_is_numpy_and_native_an_error() -> None:
    script = """
import sys
sys.modules["ref_engine.kernels._native"] = None
from ref_engine import backends, compat
assert compat.has_kernels is False
assert backends.default_backend() == "numpy"
try:
    backends.get_ops("native", "q8")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("RefEngineError the compiled kernels are not there")


def test_more_threads_than_cores_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "physical_cores", lambda: 2)
    assert threads.usable_threads(None) == 2 and threads.usable_threads(1) == 1
    with pytest.warns(UserWarning, match="n_threads 64: this process has 2 cores, using 2"):
        assert threads.usable_threads(64) == 2


def test_cores_are_counted_within_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(threads, "_siblings", lambda cpu: f"{cpu % 2},{cpu % 2 + 2}")
    monkeypatch.setattr(threads, "_quota", lambda: 1 << 16)
    assert threads.physical_cores() == 2
    monkeypatch.setattr(threads, "_quota", lambda: 1)
    assert threads.physical_cores() == 1


def test_load_takes_the_default_backend() -> None:
    assert backends.default_backend() == ("native" if compat.has_kernels else "numpy")
    assert ref_engine.load.__kwdefaults__["backend"] is None
