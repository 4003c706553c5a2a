"""One layer: two halves and the residual stream between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ref_engine.blocks.attention import attention
from ref_engine.blocks.compressed import compressed_attention
from ref_engine.blocks.deltanet import delta_net
from ref_engine.blocks.depth import last_mixed, over_depth
from ref_engine.blocks.ffn import bare_activation, ffn
from ref_engine.blocks.hyper import over_streams
from ref_engine.blocks.kda import kda
from ref_engine.blocks.latent import latent_attention
from ref_engine.blocks.lightning import lightning
from ref_engine.blocks.mamba import mamba, mamba2
from ref_engine.blocks.moe import moe
from ref_engine.blocks.ngram import with_ngrams
from ref_engine.blocks.projection import projection
from ref_engine.blocks.shortconv import short_conv
from ref_engine.blocks.site import Site, model_norm, stream_after
from ref_engine.reference.sums import F32
from ref_engine.spec import (
    ActivationSpec,
    AttentionSpec,
    CompressedAttentionSpec,
    DeltaNetSpec,
    FfnSpec,
    KdaSpec,
    LatentAttentionSpec,
    LayerSpec,
    LightningSpec,
    Mamba2Spec,
    MambaSpec,
    MoeSpec,
    ShortConvSpec,
    SumSpec,
)
from ref_engine.spec.parts import Part
from ref_engine.spec.projection import ProjectionSpec


def side_by_side(x: F32, s: SumSpec, at: Site) -> F32:
    """(T, D) -> (T, D): the sum of what all parts give."""
    first, *others = (at.tap(name, run_part(x, part, at)) for name, part in zip(s.names, s.parts, strict=True))
    for other in others:
        first = first + other
    return at.tap("layer_out", first)


# How each kind of part is computed: (x (T, D), its spec, its place) -> (T, D)
PARTS: dict[type, Callable[[F32, Any, Site], F32]] = {
    ActivationSpec: bare_activation,
    AttentionSpec: attention,
    CompressedAttentionSpec: compressed_attention,
    DeltaNetSpec: delta_net,
    FfnSpec: ffn,
    KdaSpec: kda,
    LatentAttentionSpec: latent_attention,
    LightningSpec: lightning,
    Mamba2Spec: mamba2,
    MambaSpec: mamba,
    MoeSpec: moe,
    ProjectionSpec: projection,
    ShortConvSpec: short_conv,
    SumSpec: side_by_side,
}


def run_part(x: F32, part: Part, at: Site) -> F32:
    return PARTS[type(part)](x, part, at)


def block(x: F32, layer: LayerSpec, at: Site) -> F32:
    """The residual stream through one layer: (T, D) -> (T, D)."""
    entered = entering(x, layer, at)
    if entered is not x:
        x, at = entered, replace(at, entered=entered)
    x = leaving(both_halves(x, layer, at), layer, at)
    if layer.kept:
        at.p.kept[stream_after(at.index)] = x
    return x


def both_halves(x: F32, layer: LayerSpec, at: Site) -> F32:
    """Both halves, as they meet in this layer."""
    if layer.hyper is not None:
        return over_streams(x, layer, layer.hyper, at, run_part)
    if layer.depth is not None:
        return over_depth(x, layer, layer.depth, at, run_part)
    return parallel(x, layer, at) if layer.parallel else serial(x, layer, at)


def entering(x: F32, layer: LayerSpec, at: Site) -> F32:
    """What the layer is given, and what it adds to that before anything else."""
    if layer.ngrams is not None:
        x = with_ngrams(x, layer.ngrams, at)
    if layer.recall is not None:
        x = x + at.p.kept[stream_after(layer.recall)]
    return x if layer.shift is None else x + at.weights[layer.shift].f32()


def leaving(x: F32, layer: LayerSpec, at: Site) -> F32:
    """The stream after both halves, and what is done to it before the next layer has it."""
    if layer.embedding_skip:
        scale = at["layer_output_scale.weight"].f32()
        x = x + at.tap("embd_skip", at.p.kept[stream_after(-1)] * scale)
    x = at.tap("l_out", x)
    if layer.depth is not None and layer.depth.last:
        x = last_mixed(x, layer.depth, at)
    return x if layer.exit_norm is None else at.tap("loop_norm", model_norm(x, layer.exit_norm, at.weights, at.ops))


def serial(x: F32, layer: LayerSpec, at: Site) -> F32:
    """One half after the other, each in one call where the backend can."""
    if layer.mixer is not None:
        done = attention_in_one(x, layer, at)
        x = mixed(x, layer.mixer, layer, at) if done is None else done
    if layer.ffn is not None:
        done = ffn_in_one(x, layer, at)
        x = fed(x, layer.ffn, layer, at) if done is None else done
    return x


def mixed(x: F32, mixer: Part, layer: LayerSpec, at: Site) -> F32:
    h = at.tap("attn_norm", at.norm(x, layer.mixer_norm))
    x = carried(x, h, layer)
    h = at.tap("attn_out", run_part(h, mixer, at))
    if layer.mixer_post_norm is not None:
        h = at.tap("attn_post_norm", at.norm(h, layer.mixer_post_norm))
    return at.tap(layer.stream_name, x + scaled(h, layer.residual_scale))


def fed(x: F32, part: Part, layer: LayerSpec, at: Site) -> F32:
    h = at.tap(layer.ffn_norm_name, at.norm(x, layer.ffn_norm))
    x = carried(x, h, layer)
    h = at.tap("ffn_out", run_part(h, part, at))
    if layer.ffn_post_norm is not None:
        h = at.tap("ffn_post_norm", at.norm(h, layer.ffn_post_norm))
    return x + scaled(h, layer.residual_scale)


def attention_in_one(x: F32, layer: LayerSpec, at: Site) -> F32 | None:
    """The first half by `Ops.attention_half`; None where somebody looks inside or the backend has no such call."""
    half, mixer = at.ops.attention_half, layer.mixer
    if half is None or at.p.watched or not isinstance(mixer, AttentionSpec):
        return None
    sequences = []
    for share in at.p.shares:
        n = share.rows.stop - share.rows.start
        keys, values = (share.cache.with_room(at.index, name, n) for name in ("k", "v"))
        sequences.append((share.positions, keys, values))
    turn = None if mixer.rope is None else at.p.ropes[mixer.rope]
    return half(x, layer, at.weights.layer(at.blk), turn, sequences)


def ffn_in_one(x: F32, layer: LayerSpec, at: Site) -> F32 | None:
    half = at.ops.ffn_half
    return None if half is None or at.p.watched else half(x, layer, at.weights.layer(at.blk))


def carried(x: F32, normed: F32, layer: LayerSpec) -> F32:
    """What a half is added to: the stream, or the normed stream times a factor."""
    return x if layer.normed_residual is None else scaled(normed, layer.normed_residual)


def parallel(x: F32, layer: LayerSpec, at: Site) -> F32:
    if layer.mixer is None or layer.ffn is None:
        raise ValueError("a parallel layer has both halves")
    h = at.tap("attn_norm", at.norm(x, layer.mixer_norm))
    a = at.norm(at.tap("attn_out", run_part(h, layer.mixer, at)), layer.mixer_post_norm)
    if layer.ffn_norm is not None:
        h = at.tap(layer.ffn_norm_name, at.norm(x, layer.ffn_norm))
    f = at.norm(at.tap("ffn_out", run_part(h, layer.ffn, at)), layer.ffn_post_norm)
    return x + scaled(a, layer.residual_scale) + scaled(f, layer.residual_scale)


def scaled(x: F32, factor: float | None) -> F32:
    return x if factor is None else x * np.float32(factor)
