"""A gated short convolution in the place of attention."""

from __future__ import annotations

import numpy as np

from ref_engine.blocks.site import Share, Site
from ref_engine.reference.conv import centred_conv
from ref_engine.reference.sums import F32
from ref_engine.spec import ShortConvSpec


def short_conv(x: F32, s: ShortConvSpec, at: Site) -> F32:
    """(T, D) -> (T, D)"""
    bcx = at.tap("model.layers.{}.conv.in_proj", at.linear(x, "shortconv.in_proj"))
    b, c, x = np.split(bcx, 3, axis=-1)
    bx, weight = b * x, at["shortconv.conv.weight"].f32()

    def run(share: Share) -> F32:
        if not s.causal:
            return centred_conv(bx[share.rows], weight)
        y, before = at.ops.causal_conv(bx[share.rows], share.cache.state(at.index, "conv"), weight)
        share.cache.set_state(at.index, "conv", before)
        return y

    y = at.tap("model.layers.{}.conv.conv", at.p.each(run))
    return at.tap("model.layers.{}.conv.out_proj", at.linear(c * y, "shortconv.out_proj"))
