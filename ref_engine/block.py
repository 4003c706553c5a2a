"""One layer, written once for all backends and families: it branches on features, never on names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ref_engine.cache import KVCache
from ref_engine.ops import Ops
from ref_engine.reference.linear import Map
from ref_engine.reference.sums import F32
from ref_engine.spec import AttentionSpec, FfnSpec, LayerSpec, RopeSpec
from ref_engine.weights import Weight, Weights

LayerTap = Callable[[str, int, F32], F32]  # (name, layer, value) -> the value to go on with
_GLU_NAMES = {"silu": "ffn_swiglu", "gelu": "ffn_geglu", "relu": "ffn_reglu"}
RopeTables = dict[RopeSpec, tuple[F32, F32]]


@dataclass(frozen=True)
class LayerWeights:
    """The tensors of layer `index`, by their names without the `blk.N.` prefix."""

    all: Weights
    index: int

    def __getitem__(self, name: str) -> Weight:
        return self.all[f"blk.{self.index}.{name}"]

    def vector(self, name: str) -> F32 | None:
        """A small tensor as float32, or None where the file has none."""
        full = f"blk.{self.index}.{name}"
        return self.all[full].f32() if full in self.all else None

    def map(self, name: str) -> Map:
        """The weight of a linear map and its bias, if the file has one."""
        return self[f"{name}.weight"], self.vector(f"{name}.bias")


@dataclass(frozen=True)
class Pass:
    """What all layers of one forward pass share."""

    ops: Ops
    cache: KVCache
    positions: NDArray[np.int64]  # (T,) absolute positions of the new tokens
    ropes: RopeTables
    eps: float
    tap: LayerTap
    tracing: bool


def block(x: F32, layer: LayerSpec, w: LayerWeights, p: Pass) -> F32:
    """The residual stream through one layer: (T, D) -> (T, D)."""
    i, norm = w.index, p.ops.rms_norm
    h = p.tap("attn_norm", i, norm(x, w.vector("attn_norm.weight"), p.eps))
    h = p.tap("attn_out", i, attention(h, layer.attention, w, p))
    if layer.post_attention_norm:
        h = p.tap("attn_post_norm", i, norm(h, w.vector("post_attention_norm.weight"), p.eps))
    x = p.tap(layer.stream_name, i, x + h)
    h = p.tap("ffn_norm", i, norm(x, w.vector("ffn_norm.weight"), p.eps))
    h = p.tap("ffn_out", i, ffn(h, layer.ffn, w, p))
    if layer.post_ffn_norm:
        h = p.tap("ffn_post_norm", i, norm(h, w.vector("post_ffw_norm.weight"), p.eps))
    return p.tap("l_out", i, x + h)


def attention(x: F32, a: AttentionSpec, w: LayerWeights, p: Pass) -> F32:
    """(T, D) -> (T, D): project to heads, turn by position, remember, attend, project back."""
    i, ops = w.index, p.ops
    q, k, v = ops.linears(x, [w.map(name) for name in ("attn_q", "attn_k", "attn_v")])
    q, k, v = heads(q, a.n_head), heads(k, a.n_head_kv), heads(v, a.n_head_kv)
    if a.qk_norm:
        q = p.tap("Qcur_normed", i, ops.rms_norm(q, w.vector("attn_q_norm.weight"), p.eps))
        k = p.tap("Kcur_normed", i, ops.rms_norm(k, w.vector("attn_k_norm.weight"), p.eps))
    cos, sin = p.ropes[a.rope]
    q = p.tap("Qcur", i, ops.rope(q, cos, sin, a.rope.pairing))
    k = p.tap("Kcur", i, ops.rope(k, cos, sin, a.rope.pairing))
    v = p.tap("Vcur", i, v)
    keys, values = p.cache.extend(i, k, v)
    scale = a.scale
    if a.scale_queries:
        q, scale = q * np.float32(scale), 1.0
    inner = (lambda name, value: p.tap(name, i, value)) if p.tracing else None
    y = ops.attend(q, keys, values, p.positions, scale=scale, window=a.window, cap=a.soft_cap, tap=inner)
    return ops.linear(p.tap("kqv_out", i, y), *w.map("attn_output"))


def ffn(x: F32, f: FfnSpec, w: LayerWeights, p: Pass) -> F32:
    """(T, D) -> (T, D): two projections up, one gating the other, and one down."""
    i, maps = w.index, [w.map("ffn_gate"), w.map("ffn_up")]
    gate, up = p.ops.linears(x, maps)
    gate = p.tap(_name("ffn_gate", maps[0]), i, gate)
    up = p.tap(_name("ffn_up", maps[1]), i, up)
    h = p.tap(_GLU_NAMES[f.activation], i, p.ops.glu(gate, up, f.activation))
    down = w.map("ffn_down")
    return p.tap(_name("ffn_down", down), i, p.ops.linear(h, *down))


def _name(name: str, map: Map) -> str:
    """llama.cpp calls a biased value `NAME_b`."""
    return name if map[1] is None else f"{name}_b"


def heads(x: F32, n: int) -> F32:
    """(T, n * Hd) -> (T, n, Hd)"""
    return x.reshape(x.shape[0], n, -1)
