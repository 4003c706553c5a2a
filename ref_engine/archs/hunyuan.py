"""Hunyuan, dense, with and without eyes: norms on the heads after they are turned, a base stretched by alpha.

llama.cpp: src/models/hunyuan-vl.cpp.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec

_NAMES = {
    "Qcur_turned": "Qcur",
    "Kcur_turned": "Kcur",
    "Qcur_normed": "Qcur_norm",
    "Kcur_normed": "Kcur_norm",
    "Qcur": None,
    "Kcur": None,
}


def spec(keys: Keys) -> ModelSpec:
    # only the model with eyes has positions along several axes, though files of both may carry the sections
    sections = keys.sections() if keys.arch == "hunyuan_vl" else None
    rope = keys.rope(keys.head_dim, "halves", factors="none", sections=sections, base=_base(keys))
    norms = {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm"), "norm_after_rope": True}
    return keys.model(layers(keys, rope, mixer=norms, names=_NAMES))


def _base(keys: Keys) -> float:
    """base * alpha**(d / (d - 2)): the scaling of bloc97 2023, "NTK-aware", with a factor from the file."""
    base = keys.positive("rope.freq_base", 10000.0)
    alpha = keys.real("rope.scaling.alpha", 0.0)
    d = keys.head_dim
    return base * alpha ** (d / (d - 2)) if alpha > 0 and d > 2 else base
