"""HRM-Text: two stacks of layers, a fast one and a slow one, run in turns (llama.cpp: src/models/hrm-text.cpp).

Each turn starts from the sum of what both stacks gave last (the slow one at first the embeddings, the fast one a
learned vector) and ends in a norm without weights. The fast stack runs l_cycles times for each run of the slow one.
Wang et al. 2025, "Hierarchical Reasoning Model".
"""

from __future__ import annotations

from dataclasses import replace

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.errors import ModelError
from ref_engine.spec import FfnSpec, LayerSpec, ModelSpec

_FIRST_FAST_STATE = "hrm.z_l_init"


def spec(keys: Keys) -> ModelSpec:
    size, slow, fast = (keys.integer(f"hrm.{name}") for name in ("layers_per_stack", "h_cycles", "l_cycles"))
    if keys.n_layer != size * slow * (fast + 1):
        raise ModelError(
            f"metadata key {keys.arch}.block_count is {keys.n_layer}, expected {size * slow * (fast + 1)} "
            f"for {slow} x ({fast} + 1) runs of stacks of {size}"
        )
    turns = [is_slow for _ in range(slow) for is_slow in [False] * fast + [True]]
    last = {True: -1, False: -1}  # the layers after which either stack was left, -1: the embeddings
    layers: list[LayerSpec] = []
    for turn, is_slow in enumerate(turns):
        stack = [_layer(keys, size * is_slow + i) for i in range(size)]
        other = last[not turns[turn - 1]] if turn else None  # what the turn before did not give
        shift = None if turn else _FIRST_FAST_STATE
        stack[0] = replace(stack[0], recall=other, shift=shift)
        stack[-1] = replace(stack[-1], exit_norm=keys.rms("stack_norm", weight="no"), kept=True)
        layers += stack
        last[is_slow] = len(layers) - 1
    return keys.model(layers, output_norm=None, embedding_scale=keys.real("embedding_scale", 0.0) or None)


def _layer(keys: Keys, blk: int) -> LayerSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    return LayerSpec(
        attention(keys, blk, rope, gate="feature"),
        FfnSpec(keys.per_layer("feed_forward_length")[0], "silu"),
        mixer_norm=keys.rms("attn_norm", weight="no"),
        ffn_norm=keys.rms("ffn_norm", weight="no"),
        blk=blk,
        stream_name="attn_add",
        names={"kqv_out": "attn_pregate", "attn_gate": "attn_gate_sigmoid", "loop_norm": "stack_norm"},
    )
