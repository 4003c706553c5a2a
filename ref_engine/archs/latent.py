"""What the families with latent attention read in the same way."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ref_engine.archs.experts import SELECTION_BIAS, moe, read_routing, shared_ffn
from ref_engine.archs.keys import Keys
from ref_engine.errors import ModelError
from ref_engine.spec import FfnSpec, IndexerSpec, LayerSpec, NormSpec, Pairing, RopeSpec
from ref_engine.spec.moe import Gate
from ref_engine.spec.parts import Part, Presence


class Widths(NamedTuple):
    """Of a query and key head without and with position, and of a value head; whether the file is for `absorbed`."""

    nope: int
    rope: int
    v: int
    absorbed: bool


def widths(keys: Keys, suffix: str = "", n_rot: int | None = None) -> Widths:
    """The widths of heads; files without the `_mla` keys hold keys and values of all heads in one matrix.

    suffix: "_swa" for the layers with a window. Raises ModelError where the part with position leaves no features.
    """
    k, v = (keys.integer(f"attention.{name}_length_mla{suffix}", 0, least=0) for name in ("key", "value"))
    if (k == 0) != (v == 0):
        raise ModelError(f"metadata keys {keys.arch}.attention.key_length_mla and value_length_mla need each other")
    absorbed = k > 0
    if not absorbed:
        heads = keys.heads()[0]
        k, v = heads.head_dim, heads.v_dim
    rope = keys.integer("rope.dimension_count") if n_rot is None else n_rot
    if rope >= k or rope % 2:
        raise ModelError(
            f"metadata key {keys.arch}.rope.dimension_count is {rope}, expected an even number below the width {k} "
            "of a head"
        )
    return Widths(k - rope, rope, v, absorbed)


def log_mul(keys: Keys) -> float:
    """mscale_all_dim of DeepSeek's YaRN, of which converters store a tenth; 0 where the file does not say it."""
    return float(np.float32(keys.real("rope.scaling.yarn_log_multiplier", 0.0)) / np.float32(0.1))


def stretched_scale(head_dim: int, rope: RopeSpec, log_mul: float) -> float:
    """The factor on scores where the context is stretched: mscale**2 / sqrt(Hd).

    As llama_model_deepseek2 has it, for every type of scaling: mscale = m (1 + 0.1 log_mul ln(factor)), where m is the
    magnitude of cosines and sines under YaRN and takes another 1 + 0.1 ln(factor) without it.
    """
    log_factor = -math.log(rope.freq_scale)
    before = rope.magnitude if rope.ext_factor else rope.magnitude * (1 + 0.1 * log_factor)
    return float((before * (1 + 0.1 * log_mul * log_factor)) ** 2 / math.sqrt(head_dim))


def read_indexer(keys: Keys, pairing: Pairing, rope_dim: int, eps: float) -> IndexerSpec:
    """The lightning indexer; eps is that of the LayerNorm on its keys."""
    width = keys.integer("attention.indexer.key_length")
    if width < rope_dim or width & (width - 1):
        raise ModelError(
            f"metadata key {keys.arch}.attention.indexer.key_length is {width}, expected a power of two of at least "
            f"{rope_dim}"
        )
    return IndexerSpec(
        n_head=keys.integer("attention.indexer.head_count"),
        head_dim=width,
        top_k=keys.integer("attention.indexer.top_k"),
        pairing=pairing,
        k_norm=NormSpec("indexer.k_norm", eps, "layer", bias="must"),
    )


def routed_ffn(
    keys: Keys,
    i: int,
    n_dense: int,
    *,
    gate: Gate | None = None,
    normalise: bool | None = None,
    bias: Presence = "may",
    merged: bool = False,
    shared_width: int | None = None,
    activation: tuple[str, tuple[float, ...]] = ("silu", ()),
    shared_activation: tuple[str, tuple[float, ...]] | None = None,
    dense_activation: tuple[str, tuple[float, ...]] | None = None,
) -> Part:
    """The feed-forward half of layer i: dense in the first n_dense layers, then experts beside one that is shared.

    gate: where the file leaves it out (None: it must not). normalise: None: as the file says. activations: names and
    constants.
    """
    if i < n_dense:
        name, constants = dense_activation or activation
        return FfnSpec(keys.per_layer("feed_forward_length")[0], name, constants=constants)
    name, constants = activation
    routing = read_routing(
        keys,
        "file",
        default_gate=gate,
        normalise="file" if normalise is None else normalise,
        bias=SELECTION_BIAS,
        bias_presence=bias,
    )
    width = keys.per_layer("expert_feed_forward_length")[0]
    n_shared = keys.integer("expert_shared_count", least=0)
    if shared_width is None:
        shared_width = width * n_shared
    name_shared, constants_shared = shared_activation or activation
    features: dict[str, Any] = {"merged": True} if merged else {}
    return moe(
        keys,
        i,
        width=width,
        activation=name,
        routing=routing,
        constants=constants,
        shared=shared_ffn(shared_width, name_shared, constants=constants_shared) if shared_width else None,
        **features,
    )


def layer(keys: Keys, mixer: Part, ffn: Part) -> LayerSpec:
    return LayerSpec(mixer, ffn, mixer_norm=keys.rms("attn_norm"), ffn_norm=keys.rms("ffn_norm"))
