"""PaddleOCR-VL's text model: ERNIE 4.5's dense layer with M-RoPE (llama.cpp: paddleocr.cpp)."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.spec import ModelSpec


def spec(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none", sections=keys.sections())
    return keys.model(layers(keys, rope, mixer={"output_bias": "may"}))
