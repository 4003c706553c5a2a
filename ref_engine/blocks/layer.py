"""One layer: two halves and the residual stream between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ref_engine.blocks.attention import attention
from ref_engine.blocks.ffn import ffn
from ref_engine.blocks.site import Site
from ref_engine.reference.sums import F32
from ref_engine.spec import AttentionSpec, FfnSpec, LayerSpec
from ref_engine.spec.parts import Part

# How each kind of part is computed: (x (T, D), its spec, its place) -> (T, D)
PARTS: dict[type, Callable[[F32, Any, Site], F32]] = {
    AttentionSpec: attention,
    FfnSpec: ffn,
}


def run_part(x: F32, part: Part, at: Site) -> F32:
    return PARTS[type(part)](x, part, at)


def block(x: F32, layer: LayerSpec, at: Site) -> F32:
    """The residual stream through one layer: (T, D) -> (T, D)."""
    return parallel(x, layer, at) if layer.parallel else serial(x, layer, at)


def serial(x: F32, layer: LayerSpec, at: Site) -> F32:
    if layer.mixer is not None:
        h = at.tap("attn_norm", at.norm(x, layer.mixer_norm))
        h = at.tap("attn_out", run_part(h, layer.mixer, at))
        if layer.mixer_post_norm is not None:
            h = at.tap("attn_post_norm", at.norm(h, layer.mixer_post_norm))
        x = at.tap(layer.stream_name, x + scaled(h, layer.residual_scale))
    if layer.ffn is not None:
        h = at.tap("ffn_norm", at.norm(x, layer.ffn_norm))
        h = at.tap("ffn_out", run_part(h, layer.ffn, at))
        if layer.ffn_post_norm is not None:
            h = at.tap("ffn_post_norm", at.norm(h, layer.ffn_post_norm))
        x = x + scaled(h, layer.residual_scale)
    return at.tap("l_out", x)


def parallel(x: F32, layer: LayerSpec, at: Site) -> F32:
    if layer.mixer is None or layer.ffn is None:
        raise ValueError("a parallel layer has both halves")
    h = at.tap("attn_norm", at.norm(x, layer.mixer_norm))
    a = at.norm(at.tap("attn_out", run_part(h, layer.mixer, at)), layer.mixer_post_norm)
    if layer.ffn_norm is not None:
        h = at.tap("ffn_norm", at.norm(x, layer.ffn_norm))
    f = at.norm(at.tap("ffn_out", run_part(h, layer.ffn, at)), layer.ffn_post_norm)
    return at.tap("l_out", x + scaled(a, layer.residual_scale) + scaled(f, layer.residual_scale))


def scaled(x: F32, factor: float | None) -> F32:
    return x if factor is None else x * np.float32(factor)
