"""Spark 2.5: windows by list, a gate for each head, gated GELU (llama.cpp: src/models/spark2-5.cpp)."""

from __future__ import annotations

from dataclasses import replace

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec

_NAMES = {
    "Qcur_mapped": "Qcur",
    "Kcur_mapped": "Kcur",
    "Qcur": "Qcur_rope",
    "Kcur": "Kcur_rope",
    "kqv_out": "attn_out",
    "attn_out": "attn_out_proj",
}


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    n_rot = keys.integer("rope.dimension_count_swa", rope.n_rot)
    turned = keys.rope(keys.head_dim, "halves", factors="none", n_rot=n_rot)
    windowed_rope = replace(keys.windowed_rope(rope, rope.base, scaled=True), n_rot=turned.n_rot)
    windows = keys.windows(None, required=True)
    return keys.model(
        layers(
            keys,
            [rope if window is None else windowed_rope for window in windows],
            windows=windows,
            mixer={"gate": "head"},
            ffn={"activation": "gelu"},
            names=_NAMES,
        )
    )
