"""Grok: capped scores, norms after both halves, experts beside a dense network where the file has one (llama.cpp:
grok.cpp, which reads a cap for the router's logits and does not use it)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ref_engine.archs.experts import dense_ffn, expert_layers, expert_width, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.errors import ModelError
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec

# What Grok 1 was trained with; its first files do not say it.
_EMBEDDING_SCALE, _LOGIT_SCALE = 78.38367176906169, 0.5773502691896257
_SCORE_SCALE, _SCORE_CAP = 0.08838834764831845, 30.0
_BETA_FAST = 8.0
_MEAN = math.sqrt(2) / 2


def spec(keys: Keys) -> ModelSpec:
    yarn = keys.yarn(factors=True, betas=True)
    if not keys.has("rope.scaling.yarn_beta_fast"):
        yarn = replace(yarn, beta_fast=_BETA_FAST)
    rope = keys.rope(keys.head_dim, "halves", factors="none", yarn=yarn)
    scale = keys.real("attention.output_scale", _SCORE_SCALE)
    cap = keys.real("attn_logit_softcapping", _SCORE_CAP)
    if cap == 0:
        raise ModelError(f"metadata key {keys.arch}.attn_logit_softcapping is {cap}, expected a number other than 0")
    routing = read_routing(keys, normalise=True, scale=False)
    post = "layer_output_norm" if "blk.0.layer_output_norm.weight" in keys.tensors else "post_ffw_norm"

    def mixer(i: int) -> AttentionSpec:
        return attention(keys, i, rope, scale_queries=True, scale=scale, soft_cap=cap)

    def ffn(i: int) -> MoeSpec:
        features: dict[str, Any] = {}
        if f"blk.{i}.ffn_up.weight" in keys.tensors:
            gated = f"blk.{i}.ffn_gate.weight" in keys.tensors
            dense = dense_ffn(keys, i, "gelu", gated=gated)
            features = {"shared": dense, "shared_name": "ffn_dense_out", "sum_scale": _MEAN}
        gated = f"blk.{i}.ffn_gate_exps.weight" in keys.tensors
        width = expert_width(keys, i, divided=False)
        return moe(keys, i, width=width, activation="gelu", gated=gated, routing=routing, **features)

    return keys.model(
        expert_layers(keys, mixer, ffn, mixer_post_norm=keys.rms("attn_output_norm"), ffn_post_norm=keys.rms(post)),
        embedding_scale=keys.real("embedding_scale", _EMBEDDING_SCALE) or None,
        logit_scale=keys.real("logit_scale", _LOGIT_SCALE),
        final_soft_cap=keys.real("final_logit_softcapping", 0.0) or None,
    )
