"""Granite 3 and its relatives: Llama's layer with a scale on embedding, scores, residuals and logits.

llama.cpp: src/models/granite.cpp, granite-moe.cpp, granite-swa.cpp (windows and sinks) and minicpm.cpp
(scales of its own where the file has none).
"""

from __future__ import annotations

import math

from ref_engine.archs.experts import dense_or_moe
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.errors import ModelError
from ref_engine.reference.attention import default_scale
from ref_engine.spec import ModelSpec

_MINICPM_EMBEDDING_SCALE = 12.0
_MINICPM_DEPTH_SCALE = 1.4
_MINICPM_BASE_WIDTH = 256


def granite(keys: Keys) -> ModelSpec:
    return _granite(keys, turned=keys.boolean("rope.scaling.finetuned", True))


def granite_moe(keys: Keys) -> ModelSpec:
    return _granite(keys, turned=True)


def _granite(keys: Keys, turned: bool) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "adjacent") if turned else None,
            mixer={"scale": _score_scale(keys), "output_bias": "may"},
            ffn=dense_or_moe(keys, {"bias": "may"}, shared=True),
            residual_scale=keys.real("residual_scale", 0.0) or None,
        ),
        embedding_scale=keys.real("embedding_scale", 0.0) or None,
        logit_scale=1 / _divisor(keys, keys.real("logit_scale")),
        ignored=() if turned else ("rope_f*.weight",),
    )


def granite_swa(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "adjacent")
    turned = keys.listed("attention.rope_pattern", 1)
    return keys.model(
        layers(
            keys,
            [rope if t else None for t in turned],
            windows=keys.windows(None, required=True),
            mixer={"scale": _score_scale(keys), "output_bias": "may", "sinks": "must"},
            ffn={"bias": "may"},
            residual_scale=keys.real("residual_scale", 0.0) or None,
        ),
        embedding_scale=keys.real("embedding_scale", 0.0) or None,
        logit_scale=1 / _divisor(keys, keys.real("logit_scale")),
    )


def minicpm(keys: Keys) -> ModelSpec:
    residual_scale = keys.real("residual_scale", _MINICPM_DEPTH_SCALE / math.sqrt(keys.n_layer))
    logit_scale = keys.real("logit_scale", _MINICPM_BASE_WIDTH / keys.d_model)
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "adjacent"),
            mixer={"output_bias": "may"},
            ffn=dense_or_moe(keys, {"bias": "may"}),
            residual_scale=residual_scale or None,
        ),
        embedding_scale=keys.real("embedding_scale", _MINICPM_EMBEDDING_SCALE) or None,
        logit_scale=1 / _divisor(keys, logit_scale),
    )


def _score_scale(keys: Keys) -> float:
    return keys.real("attention.scale", 0.0) or default_scale(keys.head_dim)


def _divisor(keys: Keys, logit_scale: float) -> float:
    if logit_scale == 0:
        raise ModelError(f"metadata key {keys.arch}.logit_scale is {logit_scale}, expected a number other than 0")
    return logit_scale
