"""The dense feed-forward half."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.site import Site
from ref_engine.reference.linear import Map
from ref_engine.reference.sums import F32
from ref_engine.spec import FfnSpec

GLU_NAMES = {"silu": "ffn_swiglu", "gelu": "ffn_geglu", "relu": "ffn_reglu"}


def ffn(x: F32, f: FfnSpec, at: Site) -> F32:
    """(T, D) -> (T, D): one projection up, usually gated by another, and one down."""
    if f.gated:
        gate, up = gate_and_up(x, f, at)
        h = at.tap(GLU_NAMES.get(f.activation, f"ffn_{f.activation}"), at.ops.glu(gate, up, f.activation))
    else:
        wide = at.map(f.up)
        up = at.tap(biased(f.up, wide), at.ops.linear(x, *wide))
        h = at.tap(f"ffn_{f.activation}", at.ops.activation(up, f.activation))
    down = at.map(f.down)
    return at.tap(biased(f.down, down), at.ops.linear(h, *down))


def gate_and_up(x: F32, f: FfnSpec, at: Site) -> tuple[F32, F32]:
    """(T, D) -> twice (T, F)"""
    if f.fused:
        gate, up = np.split(at.linear(x, f.up), 2, axis=-1)
        return gate, up
    maps = [at.map(f.gate), at.map(f.up)]
    gate, up = at.ops.linears(x, maps)
    return at.tap(biased(f.gate, maps[0]), gate), at.tap(biased(f.up, maps[1]), up)


def biased(name: str, map: Map) -> str:
    """llama.cpp calls a biased value `NAME_b`."""
    return name if map[1] is None else f"{name}_b"
