"""StableLM: LayerNorm, a part of each head turned; side by side where the file has one norm for both halves.

llama.cpp: src/models/stablelm.cpp.
"""

from __future__ import annotations

from typing import Any

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    mixer: dict[str, Any] = {"norm_over": "heads"}
    for name in ("q_norm", "k_norm"):
        if f"blk.0.attn_{name}.weight" in keys.tensors:
            mixer[name] = keys.layer_norm(f"attn_{name}", bias="no")
    serial = "blk.0.ffn_norm.weight" in keys.tensors
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "halves", factors="none"),
            keys.layer_norm,
            mixer=mixer,
            ffn_norm=keys.layer_norm("ffn_norm", bias="may") if serial else None,
            parallel=not serial,
        ),
        output_norm=keys.layer_norm("output_norm"),
        tied=False,
    )
