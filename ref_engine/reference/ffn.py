"""The feed-forward part of a layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ref_engine.reference.elementary import exp, gelu, relu, relu_sqr, sigmoid, silu, tanh
from ref_engine.reference.sums import F32

ACTIVATIONS: dict[str, Callable[[F32], F32]] = {
    "silu": silu, "gelu": gelu, "relu": relu, "relu_sqr": relu_sqr, "sigmoid": sigmoid,
}  # fmt: skip


def clip(x: F32, limit: float) -> F32:
    clipped: F32 = np.minimum(np.maximum(x, np.float32(-limit)), np.float32(limit))
    return clipped


def swiglu_oai(gate: F32, up: F32, alpha: float, limit: float) -> F32:
    """g / (1 + e**(-alpha g)) * (1 + clip(up)) with g = min(gate, limit) (gpt-oss; ggml_swiglu_oai)."""
    g = np.minimum(gate, np.float32(limit))
    y: F32 = g / (np.float32(1) + exp(np.float32(alpha) * -g)) * (clip(up, limit) + np.float32(1))
    return y


def swiglu_clamp(gate: F32, up: F32, limit: float) -> F32:
    """silu(min(gate, limit)) * clip(up) (ggml_swiglu_clamp)."""
    return silu(np.minimum(gate, np.float32(limit))) * clip(up, limit)


def swiglu_limit(gate: F32, up: F32, limit: float) -> F32:
    """min(silu(gate), limit) * clip(up) (Step 3.5)."""
    return np.minimum(silu(gate), np.float32(limit)) * clip(up, limit)


def situ(gate: F32, up: F32, beta: float, linear_beta: float) -> F32:
    """beta tanh(gate / beta) * sigmoid(gate) * linear_beta tanh(up / linear_beta); linear_beta 0: just up."""
    act = tanh(gate * _reciprocal(beta)) * np.float32(beta) * sigmoid(gate)
    if linear_beta > 0:
        up = tanh(up * _reciprocal(linear_beta)) * np.float32(linear_beta)
    return act * up


def _reciprocal(x: float) -> np.float32:
    return np.float32(1) / np.float32(x)


# Gated units with constants of their own, by name; how many constants each takes is its signature.
UNITS: dict[str, Callable[..., F32]] = {
    "swiglu_oai": swiglu_oai,
    "swiglu_clamp": swiglu_clamp,
    "swiglu_limit": swiglu_limit,
    "situ": situ,
}


def glu(gate: F32, up: F32, activation: str, constants: tuple[float, ...] = ()) -> F32:
    """activation(gate) * up (Shazeer 2020), or the unit of that name: (T, F), (T, F) -> (T, F).

    Raises KeyError for an unknown activation.
    """
    if activation in UNITS:
        return UNITS[activation](gate, up, *constants)
    return ACTIVATIONS[activation](gate) * up


def glu_name(activation: str) -> str:
    """llama.cpp's name for what `glu` gives."""
    names = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu"}
    limited = {"swiglu_clamp": "swiglu_limited", "swiglu_limit": "swiglu_limited"}
    return (names | limited).get(activation, activation)


def activation(x: F32, name: str) -> F32:
    """An activation by its name, without a gate, any shape. Raises KeyError for an unknown one."""
    return ACTIVATIONS[name](x)
