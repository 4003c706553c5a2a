"""A GPU that is not there, for the tests that need one."""

from collections.abc import Iterator

import pytest
import standin

from ref_engine import compat
from ref_engine.gpu import experts, products
from ref_engine.gpu.packed import has_kernel
from ref_engine.weights import Weight

MOST = 1 << 14  # numbers of a matrix that the emulator multiplies with in a few ms


def small(weight: Weight) -> bool:
    """Whether a kernel multiplies by this weight here; larger ones go the way of types that have none."""
    return has_kernel(weight) and weight.shape[-1] * weight.shape[-2] <= MOST


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[standin.Cupy]:
    """The stand-in for CuPy, in its place."""
    made = standin.make()
    monkeypatch.setattr(compat, "cupy", made)
    monkeypatch.setattr(compat, "why_no_cupy", "")
    for user in (products, experts):
        monkeypatch.setattr(user, "has_kernel", small)
    yield made
    standin.Array.module = None
