"""The feed-forward part of a layer."""

from __future__ import annotations

from collections.abc import Callable

from ref_engine.reference.elementary import gelu, relu, relu_sqr, silu
from ref_engine.reference.sums import F32

ACTIVATIONS: dict[str, Callable[[F32], F32]] = {"silu": silu, "gelu": gelu, "relu": relu, "relu_sqr": relu_sqr}


def glu(gate: F32, up: F32, activation: str) -> F32:
    """activation(gate) * up (Shazeer 2020): (T, F), (T, F) -> (T, F). Raises KeyError for an unknown activation."""
    return ACTIVATIONS[activation](gate) * up


def activation(x: F32, name: str) -> F32:
    """An activation by its name, without a gate, any shape. Raises KeyError for an unknown one."""
    return ACTIVATIONS[name](x)
