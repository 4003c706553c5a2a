"""Encoders: BERT, DistilBERT, RoBERTa.

Sources: llama.cpp's conversion/bert.py, transformers' modeling_bert.py, modeling_distilbert.py, modeling_roberta.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ref_engine.archs.hf.common import common_keys, pooling_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.recipe import Named, Recipe, Tensors
from ref_engine.checkpoint import Config, Tensor
from ref_engine.errors import ConvertError
from ref_engine.files.types import GGUFValueType

_HEADS = ("cls.predictions", "cls.seq_relationship", "vocab_", "lm_head.")


def _keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.boolean("attention.causal", False)
    pooling_keys(config, keys)
    if labels := _labels(config):
        keys.array("classifier.output_labels", labels, GGUFValueType.STRING)


def _labels(config: Config) -> list[str]:
    """Names of a classifier's outputs; two with the names that transformers makes up are none."""
    given = config.inner("id2label")
    names = [given[key] for key in sorted(given, key=lambda key: (len(key), key))]
    if not all(isinstance(name, str) for name in names):
        raise ConvertError(f"{given.where} must hold texts")
    return [] if len(names) == 2 and names[0] == "LABEL_0" else names


def _rename(config: Config, name: str) -> str | None:
    for prefix in ("bert.", "distilbert.", "roberta."):
        name = name.removeprefix(prefix)
    if name.endswith(".gamma"):
        name = name.removesuffix(".gamma") + ".weight"
    if name.endswith(".beta"):
        name = name.removesuffix(".beta") + ".bias"
    if name in ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias") or name.startswith(_HEADS):
        return None
    return name


def _rewrite(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    if _labels(config) and name in ("classifier.weight", "classifier.bias"):
        name = name.replace("classifier.", "classifier.out_proj.")
    if name == "embeddings.position_embeddings.weight" and (skip := config.integer("first_position", default=0)):
        tensor = tensor.rows(skip, (tensor.shape or (0,))[0])
    yield name, tensor


def _token_types(config: Config, keys: KeyWriter) -> None:
    keys.u32("tokenizer.ggml.token_type_count", config.get("type_vocab_size", 1), full=True)


def _distil_keys(config: Config, keys: KeyWriter) -> None:
    _keys(config, keys)
    keys.f32("attention.layer_norm_epsilon", 1e-12)


def _after_padding(config: Config, tensors: Tensors) -> Config:
    """RoBERTa's positions begin after the padding token's id."""
    if config.get("pad_token_id") is None:
        return config
    first = 1 + config.integer("pad_token_id")
    return config.changed(
        first_position=first, max_position_embeddings=config.integer("max_position_embeddings", at_least=first) - first
    )


BERT = Recipe(
    "bert", rename=_rename, rewrite=_rewrite, keys=_keys, vocabulary="wordpiece", vocabulary_keys=_token_types
)
_DISTIL = replace(BERT, keys=_distil_keys)
_ROBERTA = replace(BERT, prepare=_after_padding, vocabulary="byte-level")

RECIPES = {
    "BertModel": BERT,
    "BertForMaskedLM": BERT,
    "BertForSequenceClassification": BERT,
    "DistilBertModel": _DISTIL,
    "DistilBertForMaskedLM": _DISTIL,
    "RobertaModel": _ROBERTA,
    "RobertaForSequenceClassification": _ROBERTA,
}
