"""CodeShell: LayerNorm, GELU, biases everywhere; the embedding may be the output matrix.

llama.cpp: src/models/codeshell.cpp.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    embedding = "token_embd.weight"
    return keys.model(
        layers(
            keys,
            keys.rope(keys.head_dim, "halves", factors="none"),
            keys.layer_norm,
            mixer={"output_bias": "must"},
            ffn={"activation": "gelu", "gated": False, "bias": "must"},
        ),
        output_norm=keys.layer_norm("output_norm"),
        tied=False,
        embedding=embedding if embedding in keys.tensors else "output.weight",
    )
