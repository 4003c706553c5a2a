"""The feed-forward part of a layer."""

from __future__ import annotations

from collections.abc import Callable

from ref_engine.reference.elementary import gelu, relu, silu
from ref_engine.reference.sums import F32

ACTIVATIONS: dict[str, Callable[[F32], F32]] = {"silu": silu, "gelu": gelu, "relu": relu}


def glu(gate: F32, up: F32, activation: str) -> F32:
    """activation(gate) * up (Shazeer 2020): (T, F), (T, F) -> (T, F). Raises KeyError for an unknown activation."""
    return ACTIVATIONS[activation](gate) * up
