"""Layers whose halves read the streams of earlier layers too."""

from __future__ import annotations

from collections.abc import Callable

from ref_engine.blocks.site import Site
from ref_engine.reference.depth import depth_weights, weighted_sum
from ref_engine.reference.sums import F32
from ref_engine.spec import DepthSpec, LayerSpec
from ref_engine.spec.parts import Part

_BANK = "banked streams"


def over_depth(x: F32, layer: LayerSpec, r: DepthSpec, at: Site, run: Callable[[F32, Part, Site], F32]) -> F32:
    """The stream through both halves: (T, D) -> (T, D). `run` computes a part."""
    if layer.mixer is None or layer.ffn is None:
        raise ValueError("a layer with attention over depth has both halves")
    h = mixed(x, "attn", r, at)
    if r.banks:
        at.p.kept[_BANK] = (*banked(at), x)
    y = at.tap("attn_out", run(at.tap("attn_norm", at.norm(h, layer.mixer_norm)), layer.mixer, at))
    x = at.tap(layer.stream_name, y if r.banks else x + y)
    h = at.norm(mixed(x, "ffn", r, at), layer.ffn_norm)
    return x + at.tap("ffn_out", run(at.tap(layer.ffn_norm_name, h), layer.ffn, at))


def banked(at: Site) -> tuple[F32, ...]:
    """The streams that layers have put aside in this pass, the oldest first, each (T, D)."""
    streams: tuple[F32, ...] = at.p.kept.get(_BANK, ())
    return streams


def mixed(x: F32, half: str, r: DepthSpec, at: Site) -> F32:
    """What a half reads: (T, D) -> (T, D)."""
    streams = banked(at)
    if not streams:
        return x
    weights = depth_weights((*streams, x), at[f"{half}_res_score.weight"].f32(), r.eps)
    weights = at.tap("res_probs" if half == "ffn" else "attn_res_probs", weights)  # llama.cpp names both alike
    return weighted_sum((*streams, x), weights)


def last_mixed(x: F32, r: DepthSpec, at: Site) -> F32:
    """What the output norm reads: (T, D) -> (T, D)."""
    streams = (*banked(at), x)
    weights = at.p.tap("res_probs", None, depth_weights(streams, at.weights["output_res_score.weight"].f32(), r.eps))
    return weighted_sum(streams, weights)
