"""Typed, checked reading of the metadata that many families share. Errors name the key."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from ref_engine.errors import ModelError
from ref_engine.files.values import listed
from ref_engine.spec import LayerSpec, ModelSpec, NormSpec, Pairing, RopeSpec
from ref_engine.spec.parts import Presence

_MISSING = object()
_LARGEST = 1 << 31  # no width, count or length in a real model is larger
_LARGEST_WORD = (1 << 64) - 1
_MOST_LAYERS = 512  # as in llama.cpp; a hostile count must not become a list


@dataclass(frozen=True)
class Yarn:
    """YaRN (Peng et al. 2023) beyond what every file may say of it.

    ext_factor:  share of extrapolation; None: 1 with rope.scaling.type yarn, else 0
    attn_factor: factor on cosines and sines where ext_factor is 0
    log_mul, mscale: the magnitude is that of mscale over that of log_mul, in place of that of 1 (DeepSeek 2)
    """

    ext_factor: float | None = None
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    log_mul: float = 0.0
    mscale: float = 1.0

    def magnitude(self, factor: float, ext_factor: float) -> float:
        """What cosines and sines are multiplied by where positions are stretched by `factor`."""
        if ext_factor == 0:
            return self.attn_factor
        if self.log_mul:
            return yarn_magnitude(factor, self.mscale) / yarn_magnitude(factor, self.log_mul)
        return yarn_magnitude(factor)


def yarn_magnitude(factor: float, mscale: float = 1.0) -> float:
    """1 + 0.1 mscale ln(factor), and 1 where nothing is stretched."""
    return 1.0 if factor <= 1 else 1 + 0.1 * mscale * math.log(factor)


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
    tensors: Collection[str] | Mapping[str, tuple[int, ...]]
    n_ctx: int | None = None

    def _get(self, key: str, default: object) -> object:
        value = self.metadata.get(f"{self.arch}.{key}", default)
        if value is _MISSING:
            raise ModelError(f"metadata key {self.arch}.{key} is missing")
        return value

    def _error(self, key: str, value: object, wanted: str) -> ModelError:
        return ModelError(f"metadata key {self.arch}.{key} is {value!r}, expected {wanted}")

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, slowest axis first; None for one that is not there, or where only names are known."""
        return self.tensors.get(name) if isinstance(self.tensors, Mapping) else None

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

    def whole_numbers(self, key: str, n: int = 0, least: int = 0, most: int = _LARGEST_WORD) -> list[int]:
        """A list of at least n whole numbers from least to most: the first n of them, or all for n = 0."""
        value = self._get(key, _MISSING)
        items = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(items, list):
            raise self._error(key, value, "a list")
        items = items[: n or None]
        if len(items) < n or not all(type(v) is int and least <= v <= most for v in items):
            raise self._error(key, value, f"{n or 'some'} whole numbers of {least} to {most}")
        return items

    def listed(self, key: str, default: int) -> list[int]:
        """One whole number for each layer where the file has a list of them, else `default` for all."""
        value = self.metadata.get(f"{self.arch}.{key}")
        listed = isinstance(value, (list, np.ndarray))
        return self.per_layer(key, least=0) if listed else [default] * self.n_layer

    def reals_per_layer(self, key: str, default: object = _MISSING) -> list[float]:
        """One finite number for each layer; a single one in the file counts for all."""
        value = self._get(key, default)
        if not isinstance(value, (list, np.ndarray)):
            return [self.real(key, default)] * self.n_layer
        items: list[Any] = (value.tolist() if isinstance(value, np.ndarray) else value)[: self.n_layer]
        if len(items) < self.n_layer or not all(isinstance(v, float) and math.isfinite(v) for v in items):
            raise self._error(key, value, f"{self.n_layer} finite numbers")
        return items

    @property
    def n_layer(self) -> int:
        """Layers that text goes through: without those at the end that predict tokens further ahead (nextn)."""
        n_all, n_ahead = self.integer("block_count"), self.integer("nextn_predict_layers", 0, least=0)
        if n_all > _MOST_LAYERS:
            raise self._error("block_count", n_all, f"at most {_MOST_LAYERS}")
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
        return listed(self.metadata, "tokenizer.ggml.tokens") or self.integer("vocab_size")

    @property
    def tied(self) -> bool:
        """The embedding matrix is the output matrix too."""
        return "output.weight" not in self.tensors

    @property
    def head_dim(self) -> int:
        """The width of a query or key head."""
        return self.heads(recurrent=True)[0].head_dim

    @property
    def causal(self) -> bool:
        return self.boolean("attention.causal", True)

    def heads(self, swa: bool = False, recurrent: bool = False) -> list[Heads]:
        """The heads of each layer (swa: with the widths of layers with a sliding window, where they differ).

        recurrent: there may be layers with query heads but no key/value heads, which are recurrent ones.
        """
        n_head = self.per_layer("attention.head_count", least=0)
        grouped = self.has("attention.head_count_kv")
        n_head_kv = self.per_layer("attention.head_count_kv", least=0) if grouped else n_head
        k_dim = self.integer("attention.key_length", max(1, self.d_model // max(1, n_head[0])))
        v_dim = self.integer("attention.value_length", max(1, self.d_model // max(1, n_head[0])))
        if swa:
            k_dim = self.integer("attention.key_length_swa", k_dim)
            v_dim = self.integer("attention.value_length_swa", v_dim)
        for h, k in zip(n_head, n_head_kv, strict=True):
            if h % k if k else h and not recurrent:
                raise self._error("attention.head_count_kv", k, f"a divisor of {h} heads")
        return [Heads(h, k, k_dim, v_dim) for h, k in zip(n_head, n_head_kv, strict=True)]

    def contexts(self) -> tuple[int, int]:
        """The context length to run at, and the one for prompts that do not fit it.

        Both are what was asked for, else what the model was trained for. But a longrope model has other factors beyond
        its original length: it runs within that length unless the prompt or the caller asks for more.
        """
        if self.n_ctx is not None:
            return self.n_ctx, self.n_ctx
        longrope = "rope_factors_long.weight" in self.tensors
        return min(self.n_ctx_orig, self.n_ctx_train) if longrope else self.n_ctx_train, self.n_ctx_train

    @property
    def n_ctx_orig(self) -> int:
        return self.integer("rope.scaling.original_context_length", self.n_ctx_train, least=0) or self.n_ctx_train

    def model(self, layers: Iterable[LayerSpec], **features: Any) -> ModelSpec:
        """The ModelSpec of these layers, with what every family reads in the same way and `features` of its own."""
        n_ctx, n_ctx_most = self.contexts()
        # input_scale is for products in 4-bit floats, which no CPU of llama.cpp's does
        features["ignored"] = (*self.ahead, "blk.*.input_scale", *features.get("ignored", ()))
        features.setdefault("tied", self.tied)
        features.setdefault("causal", self.causal)
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
            **features,
        )

    def rms(self, name: str, **features: Any) -> NormSpec:
        """An RMS norm whose weight is the tensor `name.weight`."""
        return NormSpec(name, self.real("attention.layer_norm_rms_epsilon"), **features)

    def layer_norm(self, name: str, bias: Presence = "must", **features: Any) -> NormSpec:
        """A LayerNorm of the tensors `name.weight` and `name.bias`."""
        return NormSpec(name, self.real("attention.layer_norm_epsilon"), "layer", bias=bias, **features)

    def rope(
        self,
        head_dim: int,
        pairing: Pairing,
        *,
        yarn: Yarn | None = None,
        n_rot: int | None = None,
        factors: Literal["by type", "longrope", "plain", "none"] = "by type",
        **features: Any,
    ) -> RopeSpec:
        """Rotary embedding with the scaling that the metadata and the factor tensors ask for.

        yarn: what a family reads beyond the keys that all of them read (see `yarn`). n_rot: turned features of a head,
        else those of rope.dimension_count. factors: which tensors with factors the family has: those of the scaling's
        type, those of longrope or the plain ones whatever the type, or none. features: of RopeSpec, in place of those
        read here.
        Source: llama_model_base::load_hparams and the context's set-up, together with ggml_rope_yarn.
        """
        n_rot = self.integer("rope.dimension_count", head_dim) if n_rot is None else n_rot
        if n_rot % 2 or n_rot > head_dim:
            raise self._error("rope.dimension_count", n_rot, f"an even number up to the head width {head_dim}")
        kind = self.text("rope.scaling.type", "linear")
        if kind not in ("none", "linear", "yarn", "longrope"):
            raise self._error("rope.scaling.type", kind, "none, linear, yarn or longrope")
        yarn = yarn or Yarn()
        factor = self._factor
        ext_factor = (1.0 if kind == "yarn" else 0.0) if yarn.ext_factor is None else yarn.ext_factor
        short, long = (None, None) if factors == "none" else self._factors(kind if factors == "by type" else factors)
        read: dict[str, Any] = {
            "base": self.positive("rope.freq_base", 10000.0),
            "freq_scale": 1 / factor,
            "ext_factor": ext_factor,
            "magnitude": yarn.magnitude(factor, ext_factor) * self.real("rope.scaling.attn_factor", 1.0),
            "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow,
            "n_ctx_orig": self.n_ctx_orig,
            "factors": short,
            "long_factors": long,
        }
        return RopeSpec(n_rot=n_rot, pairing=pairing, **(read | features))

    @property
    def _factor(self) -> float:
        """By how much positions are stretched."""
        factor = self.real("rope.scaling.factor", self.real("rope.scale_linear", 0.0)) or 1.0
        if factor <= 0:
            raise self._error("rope.scaling.factor", factor, "more than 0")
        return 1.0 if self.text("rope.scaling.type", "linear") == "none" else factor

    def positive(self, key: str, default: float) -> float:
        """A finite number above zero."""
        value = self.real(key, default)
        if value <= 0:
            raise self._error(key, value, "more than 0")
        return value

    def yarn(self, *, factors: bool = False, betas: bool = False, log_mul: float = 0.0, mscale: float = 1.0) -> Yarn:
        """YaRN as families read it that know more of its keys than all do.

        factors: yarn_ext_factor and yarn_attn_factor; betas: yarn_beta_fast and yarn_beta_slow; log_mul: the value of
        yarn_log_multiplier as the family takes it; mscale: see `Yarn`.
        """
        read = Yarn(log_mul=log_mul, mscale=mscale)
        if factors:
            ext_factor = self.real("rope.scaling.yarn_ext_factor", -1.0)
            attn_factor = self.real("rope.scaling.yarn_attn_factor", 1.0)
            read = replace(read, ext_factor=None if ext_factor < 0 else ext_factor, attn_factor=attn_factor)
        if betas:
            fast = self.positive("rope.scaling.yarn_beta_fast", 32.0)
            slow = self.positive("rope.scaling.yarn_beta_slow", 1.0)
            read = replace(read, beta_fast=fast, beta_slow=slow)
        return read

    def sections(self, required: bool = False) -> tuple[int, int, int, int] | None:
        """How many pairs of a head follow each of the four axes of M-RoPE; None for a model without (the first two
        are what tells, as in llama_hparams::use_mrope)."""
        key = "rope.dimension_sections"
        value = self._get(key, _MISSING if required else [0] * 4)
        items = value.tolist() if isinstance(value, np.ndarray) else value
        items = items if isinstance(items, list) else [items] * 4
        if len(items) != 4 or not all(type(v) is int and 0 <= v < _LARGEST for v in items):
            raise self._error(key, value, "four whole numbers")
        time, height, width, extra = items
        if required and not any(items[:3]):
            raise self._error(key, value, "a pair for time, height or width")
        return (time, height, width, extra) if required or (time and height) else None

    def _factors(self, kind: str) -> tuple[str | None, str | None]:
        """The tensors that divide the frequencies, if the file has them: within the original length, and beyond."""
        names = ["rope_freqs.weight"] * 2
        if kind == "longrope":
            names = ["rope_factors_short.weight", "rope_factors_long.weight"]
        short, long = (name if name in self.tensors else None for name in names)
        return short, long

    def windowed_rope(self, rope: RopeSpec, base: float = 10000.0, scaled: bool = False) -> RopeSpec:
        """The rotary embedding of layers with a sliding window: a base of its own and no factors.

        base: where the file has no rope.freq_base_swa. scaled: stretched as the other layers are. The magnitude is
        made for the other layers' factor, and ggml puts it back for the factor at hand.
        """
        back = 1.0 if scaled or not rope.ext_factor else 1 + 0.1 * math.log(1 / rope.freq_scale)
        return replace(
            rope,
            base=self.positive("rope.freq_base_swa", base),
            freq_scale=rope.freq_scale if scaled else 1.0,
            magnitude=rope.magnitude / back,
            factors=None,
            long_factors=None,
        )

    def windows(
        self, period: int | None, default: int = 0, dense_first: bool = False, required: bool = False
    ) -> list[int | None]:
        """The sliding window of each layer, `default` where the file has no size (0: no window).

        Where the file has no pattern, every `period`-th layer sees all: the last of each so many layers, or the first.
        period None: the file must have a pattern. required: it must have a size.
        """
        size = self.integer("attention.sliding_window", _MISSING if required else default, least=0)
        if not size:
            return [None] * self.n_layer
        key = "attention.sliding_window_pattern"
        pattern = self._get(key, _MISSING if period is None else period)
        if period is None or isinstance(pattern, (list, np.ndarray)):
            if not isinstance(pattern, (list, np.ndarray)):
                raise self._error(key, pattern, "a list")
            windowed = [v > 0 for v in self.per_layer(key, least=0)]
        else:
            period = self.integer(key, period, least=0)
            full = 0 if dense_first else period - 1
            windowed = [period == 0 or i % period != full for i in range(self.n_layer)]
        return [size if w else None for w in windowed]
