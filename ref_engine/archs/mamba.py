"""Mamba and Mamba 2: layers that are only a recurrence (llama.cpp: src/models/mamba.cpp, mamba2.cpp).

FalconMamba is a Mamba that normalises B, C and what the steps are made of, without weights.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.recurrent import mamba, mamba2
from ref_engine.spec import LayerSpec, ModelSpec


def spec(keys: Keys) -> ModelSpec:
    norms = {}
    if keys.boolean("ssm.dt_b_c_rms", False):
        norms = {f"{part}_norm": keys.rms(f"ssm_{part}_norm", weight="no") for part in ("dt", "b", "c")}
    mixer = mamba(keys, **norms)
    return keys.model([LayerSpec(mixer, None, mixer_norm=keys.rms("attn_norm"))] * keys.n_layer)


def spec2(keys: Keys) -> ModelSpec:
    mixer = mamba2(keys, conv_bias="must")
    return keys.model([LayerSpec(mixer, None, mixer_norm=keys.rms("attn_norm"))] * keys.n_layer)
