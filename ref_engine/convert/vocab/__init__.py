"""The tokenizer of a checkpoint as GGUF metadata, by the kinds that recipes name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ref_engine.archs.hf import KeyWriter, Recipe
from ref_engine.checkpoint import Config
from ref_engine.convert.vocab.bytelevel import write_byte_level
from ref_engine.convert.vocab.files import VocabFiles
from ref_engine.convert.vocab.special import KINDS, read_special
from ref_engine.convert.vocab.spm import falls_back_to_bytes, write_fallback, write_sentencepiece
from ref_engine.convert.vocab.wordpiece import write_wordpiece
from ref_engine.errors import ConvertError

Writer = Callable[[VocabFiles, KeyWriter], None]


def _either(files: VocabFiles, keys: KeyWriter) -> None:
    (write_sentencepiece if files.has("tokenizer.model") else write_byte_level)(files, keys)


def _other_first(files: VocabFiles, keys: KeyWriter) -> None:
    (write_byte_level if files.tokenizer is not None else write_sentencepiece)(files, keys)


def _space_prefix(keys: KeyWriter, add: bool) -> None:
    keys.boolean("tokenizer.ggml.add_space_prefix", add, full=True)


def _llama(files: VocabFiles, keys: KeyWriter) -> None:
    add = (files.tokenizer_config or Config({})).get("add_prefix_space")
    if isinstance(add, bool):
        _space_prefix(keys, add)
    if files.has("tokenizer.model"):
        write_sentencepiece(files, keys)
    elif falls_back_to_bytes(files):
        write_fallback(files, keys)
    else:
        write_byte_level(files, keys)


def _without_prefix(files: VocabFiles, keys: KeyWriter) -> None:
    if files.has("tokenizer.model"):
        write_sentencepiece(files, keys)
        return
    if not falls_back_to_bytes(files):
        raise ConvertError(f"{files.path('tokenizer.model')}: missing, and tokenizer.json does not fall back to bytes")
    write_fallback(files, keys)
    _space_prefix(keys, False)


def _gemma3(files: VocabFiles, keys: KeyWriter) -> None:
    _either(files, keys)
    if files.has("tokenizer.model"):
        _space_prefix(keys, False)


def _phi3(files: VocabFiles, keys: KeyWriter) -> None:
    """Phi 4 has GPT-2's tokenizer."""
    if (files.tokenizer_config or Config({})).get("tokenizer_class") == "GPT2Tokenizer":
        write_byte_level(files, keys)
    else:
        write_sentencepiece(files, keys, plain_added=True)


def _with_texts(**texts: str) -> Writer:
    """Byte-level, with tokens for kinds that the files need not name, found by their text."""

    def write(files: VocabFiles, keys: KeyWriter) -> None:
        special = read_special(files)
        numbers = {token.content: token.id for token in files.added.values()}
        for kind, text in texts.items():
            if text not in numbers:
                raise ConvertError(f"{files.path('tokenizer.json')}: the token {text} is missing")
            special.set_default(kind, numbers[text])
        write_byte_level(files, keys, special)

    return write


def _hunyuan(files: VocabFiles, keys: KeyWriter) -> None:
    own = {**files.own_config, **files.own_config.inner("text_config")}
    pad = own.get("pad_token_id")
    absent = isinstance(pad, int) and pad < 0
    special = read_special(files, kinds=[kind for kind in KINDS if not (absent and kind == "pad")])
    write_byte_level(files, keys, special)
    if own.get("eod_token_id") is not None:
        keys.u32("tokenizer.ggml.eos_token_id", own["eod_token_id"], full=True)
    ends = files.generation_config.get("eos_token_id")
    if isinstance(ends, list) and len(ends) >= 2:
        keys.u32("tokenizer.ggml.eot_token_id", ends[0], full=True)


_END, _USER = "<|endoftext|>", "<|user|>"
WRITERS: Final[Mapping[str, Writer]] = MappingProxyType(
    {
        "byte-level": write_byte_level,
        "sentencepiece": write_sentencepiece,
        "sentencepiece or byte-level": _either,
        "byte-level or sentencepiece": _other_first,
        "sentencepiece or fallback": _without_prefix,
        "llama": _llama,
        "gemma3": _gemma3,
        "phi3": _phi3,
        "wordpiece": write_wordpiece,
        "chatglm": _with_texts(eos=_END, eot=_USER, unk=_END),
        "glm4": _with_texts(eos=_END, eot=_USER, unk=_END, bos=_END),
        "glm4moe": _with_texts(bos="[gMASK]", eot=_USER, unk=_END, eom="<|observation|>"),
        "hunyuan": _hunyuan,
    }
)
"""A recipe's kind of vocabulary -> what writes its keys."""


def write_vocabulary(folder: Path, config: Config, recipe: Recipe, keys: KeyWriter, pre: str | None = None) -> None:
    """All tokenizer keys. pre: name of a byte-level pre-tokenizer that is not recognised. Raises ConvertError."""
    files = VocabFiles(folder, config, pre)
    WRITERS[recipe.vocabulary](files, keys)
    recipe.vocabulary_keys(config.changed(tokenizer_config=dict(files.tokenizer_config or {})), keys)
