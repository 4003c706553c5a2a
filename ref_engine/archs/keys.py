"""Typed, checked reading of the metadata that many families share. Errors name the key."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ref_engine.errors import ModelError
from ref_engine.spec import LayerSpec, ModelSpec, NormSpec, Pairing, RopeSpec
from ref_engine.spec.parts import Presence

_MISSING = object()
_LARGEST = 1 << 31  # no width, count or length in a real model is larger


class Heads(NamedTuple):
    """H query heads over K key/value heads; widths of a query or key head, and of a value head."""

    n_head: int
    n_head_kv: int
    head_dim: int
    v_dim: int


@dataclass(frozen=True)
class Keys:
    metadata: Mapping[str, object]
    arch: str
    tensors: Collection[str]
    n_ctx: int | None = None

    def _get(self, key: str, default: object) -> object:
        value = self.metadata.get(f"{self.arch}.{key}", default)
        if value is _MISSING:
            raise ModelError(f"metadata key {self.arch}.{key} is missing")
        return value

    def _error(self, key: str, value: object, wanted: str) -> ModelError:
        return ModelError(f"metadata key {self.arch}.{key} is {value!r}, expected {wanted}")

    def has(self, key: str) -> bool:
        return f"{self.arch}.{key}" in self.metadata

    def integer(self, key: str, default: object = _MISSING, least: int = 1) -> int:
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _LARGEST:
            raise self._error(key, value, f"a whole number of at least {least}")
        return value

    def real(self, key: str, default: object = _MISSING) -> float:
        value = self._get(key, default)
        if not isinstance(value, float) or not math.isfinite(value):
            raise self._error(key, value, "a finite number")
        return value

    def boolean(self, key: str, default: object = _MISSING) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._error(key, value, "true or false")
        return value

    def text(self, key: str, default: object = _MISSING) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._error(key, value, "a string")
        return value

    def per_layer(self, key: str, default: object = _MISSING, least: int = 1) -> list[int]:
        """One whole number for each layer; a single one in the file counts for all."""
        value = self._get(key, default)
        if not isinstance(value, (list, np.ndarray)):
            return [self.integer(key, default, least)] * self.n_layer
        items: Sequence[object] = value.tolist() if isinstance(value, np.ndarray) else value
        if len(items) < self.n_layer or not all(
            isinstance(v, int) and least <= v < _LARGEST for v in items[: self.n_layer]
        ):
            raise self._error(key, value, f"{self.n_layer} whole numbers of at least {least}")
        return [v for v in items[: self.n_layer] if isinstance(v, int)]

    def reals_per_layer(self, key: str, default: object = _MISSING) -> list[float]:
        """One finite number for each layer; a single one in the file counts for all."""
        value = self._get(key, default)
        if not isinstance(value, (list, np.ndarray)):
            return [self.real(key, default)] * self.n_layer
        items = [float(v) for v in value]
        if len(items) < self.n_layer or not all(math.isfinite(v) for v in items[: self.n_layer]):
            raise self._error(key, value, f"{self.n_layer} finite numbers")
        return items[: self.n_layer]

    @property
    def n_layer(self) -> int:
        """Layers that text goes through: without those at the end that predict tokens further ahead (nextn)."""
        n_all, n_ahead = self.integer("block_count"), self.integer("nextn_predict_layers", 0, least=0)
        if n_ahead >= n_all:
            raise self._error("nextn_predict_layers", n_ahead, f"less than block_count {n_all}")
        return n_all - n_ahead

    @property
    def ahead(self) -> tuple[str, ...]:
        """Patterns of the tensors of the layers that predict further ahead."""
        return tuple(f"blk.{i}.*" for i in range(self.n_layer, self.integer("block_count")))

    @property
    def d_model(self) -> int:
        return self.integer("embedding_length")

    @property
    def n_ctx_train(self) -> int:
        return self.integer("context_length")

    @property
    def n_vocab(self) -> int:
        """The number of tokens listed; a file without a vocabulary says it in vocab_size."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, (list, tuple)) and len(tokens) else self.integer("vocab_size")

    @property
    def tied(self) -> bool:
        """The embedding matrix is the output matrix too."""
        return "output.weight" not in self.tensors

    def heads(self, swa: bool = False) -> list[Heads]:
        """The heads of each layer (swa: with the widths of layers with a sliding window, where they differ)."""
        n_head = self.per_layer("attention.head_count", least=0)
        grouped = self.has("attention.head_count_kv")
        n_head_kv = self.per_layer("attention.head_count_kv", least=0) if grouped else n_head
        k_dim = self.integer("attention.key_length", max(1, self.d_model // max(1, n_head[0])))
        v_dim = self.integer("attention.value_length", max(1, self.d_model // max(1, n_head[0])))
        if swa:
            k_dim = self.integer("attention.key_length_swa", k_dim)
            v_dim = self.integer("attention.value_length_swa", v_dim)
        for h, k in zip(n_head, n_head_kv, strict=True):
            if h and (k == 0 or h % k):
                raise self._error("attention.head_count_kv", k, f"a divisor of {h} heads")
        return [Heads(h, k, k_dim, v_dim) for h, k in zip(n_head, n_head_kv, strict=True)]

    def contexts(self) -> tuple[int, int]:
        """The context length to run at, and the one for prompts that do not fit it.

        Both are what was asked for, else what the model was trained for. But a longrope model has other factors beyond
        its original length: it runs within that length unless the prompt or the caller asks for more.
        """
        if self.n_ctx is not None:
            return self.n_ctx, self.n_ctx
        longrope = self.text("rope.scaling.type", "linear") == "longrope"
        return min(self.n_ctx_orig, self.n_ctx_train) if longrope else self.n_ctx_train, self.n_ctx_train

    @property
    def n_ctx_orig(self) -> int:
        return self.integer("rope.scaling.original_context_length", self.n_ctx_train, least=0) or self.n_ctx_train

    def model(self, layers: Iterable[LayerSpec], **features: Any) -> ModelSpec:
        """The ModelSpec of these layers, with what every family reads in the same way and `features` of its own."""
        n_ctx, n_ctx_most = self.contexts()
        features.setdefault("ignored", self.ahead)
        if "output_norm" not in features:
            features["output_norm"] = self.rms("output_norm")
        return ModelSpec(
            arch=self.arch,
            d_model=self.d_model,
            n_vocab=self.n_vocab,
            n_ctx_train=self.n_ctx_train,
            n_ctx=n_ctx,
            n_ctx_most=n_ctx_most,
            layers=tuple(layers),
            tied=self.tied,
            **features,
        )

    def rms(self, name: str, **features: Any) -> NormSpec:
        """An RMS norm whose weight is the tensor `name.weight`."""
        return NormSpec(name, self.real("attention.layer_norm_rms_epsilon"), **features)

    def layer_norm(self, name: str, bias: Presence = "must", **features: Any) -> NormSpec:
        """A LayerNorm of the tensors `name.weight` and `name.bias`."""
        return NormSpec(name, self.real("attention.layer_norm_epsilon"), "layer", bias=bias, **features)

    def rope(self, head_dim: int, pairing: Pairing) -> RopeSpec:
        """Rotary embedding with the scaling that the metadata and the factor tensors ask for.

        Source: llama_model_base::load_hparams and the context's YaRN set-up, which multiplies the magnitude of
        cosines and sines by 1 + 0.1 ln(factor) for YaRN.
        """
        n_rot = self.integer("rope.dimension_count", head_dim)
        if n_rot % 2 or n_rot > head_dim:
            raise self._error("rope.dimension_count", n_rot, f"an even number up to the head width {head_dim}")
        kind = self.text("rope.scaling.type", "linear")
        if kind not in ("none", "linear", "yarn", "longrope"):
            raise self._error("rope.scaling.type", kind, "none, linear, yarn or longrope")
        factor = self.real("rope.scaling.factor", self.real("rope.scale_linear", 0.0)) or 1.0
        base = self.real("rope.freq_base", 10000.0)
        for key, value in (("rope.scaling.factor", factor), ("rope.freq_base", base)):
            if value <= 0:
                raise self._error(key, value, "more than 0")
        magnitude = self.real("rope.scaling.attn_factor", 1.0)
        if kind == "yarn":
            magnitude *= 1 + 0.1 * math.log(factor) if factor > 1 else 1
        short, long = self._factors(kind)
        return RopeSpec(
            n_rot=n_rot,
            base=base,
            pairing=pairing,
            freq_scale=1.0 if kind == "none" else 1 / factor,
            ext_factor=1.0 if kind == "yarn" else 0.0,
            magnitude=magnitude,
            n_ctx_orig=self.n_ctx_orig,
            factors=short,
            long_factors=long,
        )

    def _factors(self, kind: str) -> tuple[str | None, str | None]:
        """The tensors that divide the frequencies, if the file has them: within the original length, and beyond."""
        names = ["rope_freqs.weight"] * 2
        if kind == "longrope":
            names = ["rope_factors_short.weight", "rope_factors_long.weight"]
        short, long = (name if name in self.tensors else None for name in names)
        return short, long

    def windowed_rope(self, rope: RopeSpec) -> RopeSpec:
        """The rotary embedding of layers with a sliding window: a base of its own, no interpolation, no factors."""
        return RopeSpec(
            n_rot=rope.n_rot,
            base=self.real("rope.freq_base_swa", 10000.0),
            pairing=rope.pairing,
            magnitude=self.real("rope.scaling.attn_factor", 1.0),
        )

    def windows(self, period: int) -> list[int | None]:
        """The sliding window of each layer: every `period`-th layer sees all, unless the file says otherwise."""
        size = self.integer("attention.sliding_window", 0, least=0)
        if not size:
            return [None] * self.n_layer
        pattern = self.metadata.get(f"{self.arch}.attention.sliding_window_pattern")
        if isinstance(pattern, (list, np.ndarray)):
            windowed = [v > 0 for v in self.per_layer("attention.sliding_window_pattern", least=0)]
        else:
            period = self.integer("attention.sliding_window_pattern", period, least=0)
            windowed = [period == 0 or i % period < period - 1 for i in range(self.n_layer)]
        return [size if w else None for w in windowed]
