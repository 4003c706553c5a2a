"""Layers over several residual streams, and how the streams begin and end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ref_engine.blocks.hyper_gated import gated_mean, read_gated
from ref_engine.blocks.site import LayerTap, Site
from ref_engine.ops import Ops
from ref_engine.reference.hyper import Writing, gathered, mean, reading, writing, written
from ref_engine.reference.sums import F32
from ref_engine.spec import GatedHyperSpec, HyperSpec, LayerSpec, NormSpec, StreamsSpec
from ref_engine.spec.parts import Part
from ref_engine.weights import Weights


def over_streams(
    x: F32, layer: LayerSpec, h: HyperSpec | GatedHyperSpec, at: Site, run: Callable[[F32, Part, Site], F32]
) -> F32:
    """The streams through both halves: (T, N, D) -> (T, N, D). `run` computes a part."""
    for half, part, norm, norm_name in (
        ("attn", layer.mixer, layer.mixer_norm, "attn_norm"),
        ("ffn", layer.ffn, layer.ffn_norm, layer.ffn_norm_name),
    ):
        if part is not None:
            x = through(x, half, part, norm, norm_name, h, at, run)
    return x


def through(
    x: F32, half: str, part: Part, norm: NormSpec | None, norm_name: str, h: HyperSpec | GatedHyperSpec, at: Site,
    run: Callable[[F32, Part, Site], F32],
) -> F32:  # fmt: skip
    """The streams through one half."""
    name = f"hc_{half}"
    y, back = read_gated(x, name, h, at) if isinstance(h, GatedHyperSpec) else read(x, name, h, at)
    y = at.tap(norm_name, at.norm(at.tap(f"hc_{half}_pre", y), norm))
    y = at.tap(f"{half}_out", run(y, part, at))
    x = written(x, y, back)
    return at.tap("hc_attn_post", x) if half == "attn" else x


def read(x: F32, name: str, h: HyperSpec, at: Site) -> tuple[F32, Writing]:
    """What a half reads of the streams (T, N, D) -> (T, D), and how its result is to come back."""
    suffix = (
        "_attn" if name == "hc_attn" else ""
    )  # llama.cpp has the same names for both halves; the later one keeps them
    scale, base = at[f"{name}_scale.weight"].f32(), at[f"{name}_base.weight"].f32()
    m = at.ops.linear(at.ops.rms_norm(flat(x), None, h.norm_eps), at[f"{name}_fn.weight"])
    m = at.tap(f"hc_mixes{suffix}", m)
    pre = at.tap(f"hc_pre{suffix}", reading(m, scale, base, h))
    post, mix = writing(m, scale, base, h)
    post = at.tap(f"hc_post{suffix}", post)
    return gathered(x, pre), Writing(post, None if mix is None else at.tap(f"hc_comb{suffix}", mix))


def flat(x: F32) -> F32:
    """All streams of a token in a row: (T, N, D) -> (T, N * D)."""
    return np.ascontiguousarray(x, like=x).reshape(x.shape[0], -1)


def merged(x: F32, s: StreamsSpec, weights: Weights, ops: Ops, tap: LayerTap) -> F32:
    """The streams after the last layer as one: (T, N, D) -> (T, D)."""
    if s.head is None:
        return tap("hc_head", None, mean(x))
    if isinstance(s.head, GatedHyperSpec):
        return tap("hc_mixed", None, gated_mean(x, "output_hc", s.head, weights, ops)[1])
    fn, base, scale = (weights[f"output_hc_{part}.weight"] for part in ("fn", "base", "scale"))
    m = tap("hc_head_mixes", None, ops.linear(ops.rms_norm(flat(x), None, s.head.norm_eps), fn))
    pre = tap("hc_head_pre", None, reading(m, scale.f32(), base.f32(), s.head))
    return tap("hc_head", None, gathered(x, pre))
