"""GPT-NeoX and Pythia: a part of each head turned, both halves side by side if the file says so.

llama.cpp: src/models/gptneox.cpp.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "halves", factors="none"),
            keys.layer_norm,
            mixer={"fused": True, "bias": "must", "output_bias": "must"},
            ffn={"activation": "gelu", "gated": False, "bias": "must"},
            parallel=keys.boolean("use_parallel_residual"),
        ),
        output_norm=keys.layer_norm("output_norm"),
        tied=False,
    )
