"""Nanbeige: Llama's layers, run through several times, with the output norm after each time.

llama.cpp: src/models/nanbeige.cpp.
"""

from __future__ import annotations

from dataclasses import replace

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.errors import ModelError
from ref_engine.spec import LayerSpec, ModelSpec

_MOST_LAYERS = 512  # as in llama.cpp, all times counted


def spec(keys: Keys) -> ModelSpec:
    n_loops = keys.integer("num_loops", 1)
    if n_loops * keys.n_layer > _MOST_LAYERS:
        raise ModelError(f"metadata key {keys.arch}.num_loops is {n_loops}, expected at most {_MOST_LAYERS} layers")
    rope = keys.rope(keys.head_dim, "adjacent", factors="plain")
    once = [replace(layer, blk=i) for i, layer in enumerate(layers(keys, rope, ffn={"scales": "may"}))]
    between = None if keys.boolean("skip_loop_final_norm", False) else keys.rms("output_norm")
    looped: list[LayerSpec] = []
    for _ in range(n_loops - 1):
        looped += [*once[:-1], replace(once[-1], exit_norm=between)]
    return keys.model(looped + once)
