"""A GPU that is not there, for the tests that need one."""

from collections.abc import Iterator

import pytest
import standin

from ref_engine import compat


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[standin.Cupy]:
    """The stand-in for CuPy, in its place."""
    made = standin.make()
    monkeypatch.setattr(compat, "cupy", made)
    monkeypatch.setattr(compat, "why_no_cupy", "")
    yield made
    standin.Array.module = None
