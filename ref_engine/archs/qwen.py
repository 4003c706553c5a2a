"""Qwen 1 to 3, dense, with and without eyes and voice: Llama's layer with small differences.

llama.cpp: src/models/qwen.cpp, qwen2.cpp, qwen2vl.cpp, qwen3.cpp, qwen3vl.cpp.
"""

from __future__ import annotations

from typing import Any

from ref_engine.archs.keys import Keys
from ref_engine.archs.layers import layers
from ref_engine.errors import ModelError
from ref_engine.spec import ModelSpec, NormSpec, RopeSpec

_FOR_RANKING = "cls.output.weight"
_AUDIO_TOKENS = 3072


def qwen(keys: Keys) -> ModelSpec:
    """The first; feed_forward_length counts gate and up together."""
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    widths = [width // 2 for width in keys.per_layer("feed_forward_length", least=2)]
    mixer = {"fused": True, "bias": "must", "spare_heads": True}
    return keys.model(layers(keys, rope, widths=widths, mixer=mixer), tied=False)


def qwen2(keys: Keys) -> ModelSpec:
    return keys.model(layers(keys, keys.rope(keys.head_dim, "halves", factors="none")), output_bias="may")


def qwen2vl(keys: Keys) -> ModelSpec:
    """llama.cpp reads no epsilon for this one and takes zero; a file that has one was trained with it."""

    def norm(name: str) -> NormSpec:
        return NormSpec(name, keys.real("attention.layer_norm_rms_epsilon", 0.0))

    rope = keys.rope(keys.head_dim, "halves", factors="none", sections=keys.sections(required=True))
    return keys.model(layers(keys, rope, norm), output_norm=norm("output_norm"), ignored=("output.bias",))


def qwen3(keys: Keys) -> ModelSpec:
    rope = keys.rope(keys.head_dim, "halves", factors="none")
    return keys.model(layers(keys, rope, mixer=_head_norms(keys), ffn={"scales": "may"}), ignored=(_FOR_RANKING,))


def qwen3vl(keys: Keys) -> ModelSpec:
    """With eyes. Images come with embeddings for several layers (deepstack), text with none."""
    return keys.model(layers(keys, _interleaved(keys), mixer=_head_norms(keys)), ignored=(_FOR_RANKING,))


def qwen3tts(keys: Keys) -> ModelSpec:
    """With a voice: an output matrix of its own scores only the last tokens, those for audio."""
    n_output = None if keys.tied or keys.n_vocab == _AUDIO_TOKENS else _AUDIO_TOKENS
    if keys.n_vocab < _AUDIO_TOKENS:
        raise ModelError(f"the vocabulary of {keys.arch} has {keys.n_vocab} tokens, expected at least {_AUDIO_TOKENS}")
    return keys.model(
        layers(keys, _interleaved(keys), mixer=_head_norms(keys)), n_output=n_output, ignored=(_FOR_RANKING,)
    )


def _interleaved(keys: Keys) -> RopeSpec:
    sections = keys.sections(required=True)
    return keys.rope(keys.head_dim, "halves", factors="none", sections=sections, interleaved=True)


def _head_norms(keys: Keys) -> dict[str, Any]:
    return {"q_norm": keys.rms("attn_q_norm"), "k_norm": keys.rms("attn_k_norm")}
