"""CogVLM: Llama's layer, and a second set of weights for images, which text does not use.

llama.cpp: src/models/cogvlm.cpp, where rotary embedding has its defaults whatever the file says.
"""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec, RopeSpec

_BASE = 10000.0


def spec(keys: Keys) -> ModelSpec:
    rope = RopeSpec(keys.head_dim, _BASE, "halves")
    return keys.model(
        layers(keys, rope, mixer={"fused": True, "bias": "no", "spare_heads": True}),
        ignored=("blk.*.vis_*", "rope_freqs.weight"),
    )
