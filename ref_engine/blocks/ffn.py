"""The dense feed-forward half."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.site import Site
from ref_engine.reference.ffn import glu_name
from ref_engine.reference.sums import F32
from ref_engine.spec import ActivationSpec, FfnSpec


def ffn(x: F32, f: FfnSpec, at: Site) -> F32:
    """(T, D) -> (T, D): one projection up, usually gated by another, and one down."""
    if f.gated:
        gate, up = gate_and_up(x, f, at)
        h = at.tap(f"ffn_{glu_name(f.activation)}", at.ops.glu(gate, up, f.activation, f.constants))
    else:
        up = mapped(x, "ffn_up", f.up, at)
        h = at.tap(f"ffn_{f.activation}", at.ops.activation(up, f.activation))
        divisors = at.vector("ffn.act.scales")
        h = h if divisors is None else at.tap("ffn_act", h / divisors)
    return mapped(h, "ffn_down", f.down, at)


def gate_and_up(x: F32, f: FfnSpec, at: Site) -> tuple[F32, F32]:
    """(T, D) -> twice (T, F)"""
    if f.fused:
        gate, up = np.split(at.linear(x, f.up), 2, axis=-1)
        return gate, up
    gate, up = at.ops.linears(x, [at.map(f.gate), at.map(f.up)])
    return shown(gate, "ffn_gate", f.gate, at), shown(up, "ffn_up", f.up, at)


def mapped(x: F32, role: str, name: str, at: Site) -> F32:
    return shown(at.ops.linear(x, *at.map(name)), role, name, at)


def shown(y: F32, role: str, name: str, at: Site) -> F32:
    """A map's result under llama.cpp's name for its role, biased `ROLE_b`; times the tensor's scale, if it has one."""
    y = at.tap(f"{role}_b" if f"{name}.bias" in at else role, y)
    scale = at.vector(f"{name}.scale")
    return y if scale is None else at.tap(f"{role}_s", y * scale)


def bare_activation(x: F32, a: ActivationSpec, at: Site) -> F32:
    """(T, D) -> (T, D)"""
    return at.tap(f"ffn_{a.activation}", at.ops.activation(x, a.activation))
