"""SmallThinker: the router reads what entered the layer, before attention; ReLU experts; windows without positions in
every fourth layer's place (llama.cpp: smallthinker.cpp)."""

from __future__ import annotations

from ref_engine.archs.experts import expert_layers, moe, read_routing
from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import attention
from ref_engine.spec import AttentionSpec, ModelSpec, MoeSpec

_WINDOW, _WINDOW_PERIOD = 4096, 4
_UNTURNED_PERIOD = 4


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    windowed = keys.windowed_rope(rope, base=rope.base, scaled=True)
    windows = [None if window is None else _WINDOW for window in keys.windows(_WINDOW_PERIOD, dense_first=True)]
    has_windows = keys.integer("attention.sliding_window", 0, least=0) > 0
    all_turned = not has_windows or keys.n_layer == _UNTURNED_PERIOD
    routing = read_routing(keys, "file", default_gate="softmax", normalise=True, scale=False, reads="layer")

    def mixer(i: int) -> AttentionSpec:
        turned = rope if windows[i] is None else windowed
        return attention(keys, i, turned if all_turned or i % _UNTURNED_PERIOD else None, window=windows[i])

    def ffn(i: int) -> MoeSpec:
        return moe(keys, i, activation="relu", routing=routing)

    return keys.model(expert_layers(keys, mixer, ffn))
