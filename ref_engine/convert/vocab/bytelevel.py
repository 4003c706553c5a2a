"""Byte-level BPE (GPT-2 and most that came after), from tokenizer.json or from vocab.json and merges.txt.

A GGUF file names the way text is cut before merging by `tokenizer.ggml.pre`. llama.cpp recognises it by what becomes of
one text: `pretokenizers.json` holds the text, and the names by the sha256 of its ids.

Sources: `get_vocab_base` of llama.cpp's conversion/base.py, `SpecialVocab` for the form of merges.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ref_engine.archs.hf import KeyWriter
from ref_engine.convert.vocab.files import AddedToken, VocabFiles
from ref_engine.convert.vocab.special import SpecialTokens, read_special
from ref_engine.errors import ConvertError
from ref_engine.files.types import GGUFValueType

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_SPECIAL_LOOKS = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
_BRACKETS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
_SPACE_IN_MERGES = chr(ord(" ") + 256)  # a merge is written as two parts with a space between
_MOST_TOKENS = 1 << 22


def looks_special(token: str) -> bool:
    """Tokens that some checkpoints forget to call special."""
    return token in _SPECIAL_LOOKS or any(token.startswith(a) and token.endswith(b) for a, b in _BRACKETS)


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_name("pretokenizers.json").read_text(encoding="utf-8"))
    return table


def load_tokenizer(files: VocabFiles) -> Tokenizer:
    """The tokenizer of the directory. Raises ConvertError where there is none or it is damaged."""
    if files.tokenizer is not None:
        source = files.path("tokenizer.json")
        try:
            tokenizer = Tokenizer.from_file(str(files.folder / "tokenizer.json"))
        except Exception as error:
            raise ConvertError(f"{source}: cannot be used: {error}") from error
        tokenizer.no_truncation()  # some files cut and fill up every text
        tokenizer.no_padding()
        return tokenizer
    if not (files.has("vocab.json") and files.has("merges.txt")):
        raise ConvertError(f"{files.path('tokenizer.json')}: missing, and so are vocab.json and merges.txt")
    try:
        model = models.BPE.from_file(str(files.folder / "vocab.json"), str(files.folder / "merges.txt"))
    except Exception as error:
        raise ConvertError(f"{files.path('vocab.json')}, merges.txt: cannot be used: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def recognised(tokenizer: Tokenizer, files: VocabFiles) -> str:
    """The name of the pre-tokenizer. Raises ConvertError where llama.cpp does not know it."""
    if files.pre is not None:
        return files.pre
    ids = tokenizer.encode(_table()["text"]).ids
    digest = hashlib.sha256(str(ids).encode()).hexdigest()
    if (name := _table()["names"].get(digest)) is None:
        raise ConvertError(
            f"{files.path('tokenizer.json')}: the pre-tokenizer is not one that is known (hash {digest}); "
            "--pre NAME names the one that cuts text in the same way"
        )
    return str(name)


def read_tokens(files: VocabFiles) -> tuple[list[str], list[int], str]:
    """Texts and types of all tokens by number, padded to the model's count, and the pre-tokenizer's name."""
    tokenizer = load_tokenizer(files)
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    added = dict(files.added)
    for token in added.values():
        vocab.setdefault(token.content, token.id)
    size = files.n_tokens if files.n_tokens is not None else len(vocab)
    if not vocab or max(vocab.values()) >= size:
        raise ConvertError(
            f"{files.path('tokenizer.json')}: token {max(vocab.values(), default=0)} is beyond the {size} tokens of "
            "config.json"
        )
    if size > _MOST_TOKENS:
        raise ConvertError(f"{files.config.where}: vocab_size {size} is more than any model has")
    by_id = {number: text for text, number in vocab.items()}
    tokens, types = [], []
    for number in range(size):
        text = by_id.get(number)
        if text is None:
            text, kind = f"[PAD{number}]", UNUSED
        elif number in added:
            text, kind = _added(tokenizer, added[number])
        else:
            kind = NORMAL
        tokens.append(text)
        types.append(kind)
    return tokens, types, recognised(tokenizer, files)


def _added(tokenizer: Tokenizer, token: AddedToken) -> tuple[str, int]:
    """llama.cpp looks for added tokens in text that is not normalised."""
    text = token.content
    if not token.normalized:
        text = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
    if token.special or looks_special(text):
        return text, CONTROL
    return text.replace("▁", " "), USER_DEFINED


def read_merges(files: VocabFiles) -> list[str]:
    """Merges as "LEFT RIGHT", in order of rank."""
    if files.tokenizer is not None and (merges := files.tokenizer.inner("model").get("merges")):
        if isinstance(merges, list) and all(isinstance(merge, str) for merge in merges):
            return merges
        if isinstance(merges, list) and all(_is_pair(merge) for merge in merges):
            return [" ".join(part.replace(" ", _SPACE_IN_MERGES) for part in merge) for merge in merges]
        raise ConvertError(f"{files.path('tokenizer.json')}: merges must be texts or pairs of texts")
    if not files.has("merges.txt"):
        return []
    try:
        lines = (files.folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConvertError(f"{files.path('merges.txt')}: cannot be read: {error}") from error
    lines = lines[1:] if lines[0].startswith("#") else lines
    return [" ".join(parts) for line in lines if len(parts := line.split()) == 2]


def _is_pair(merge: object) -> bool:
    return isinstance(merge, list) and len(merge) == 2 and all(isinstance(part, str) for part in merge)


def write_byte_level(files: VocabFiles, keys: KeyWriter, special: SpecialTokens | None = None) -> None:
    """special: where a family has found more than the files name."""
    tokens, types, pre = read_tokens(files)
    keys.string("tokenizer.ggml.model", "gpt2", full=True)
    keys.string("tokenizer.ggml.pre", pre, full=True)
    keys.array("tokenizer.ggml.tokens", tokens, GGUFValueType.STRING, full=True)
    keys.ints("tokenizer.ggml.token_type", types, full=True)
    keys.array("tokenizer.ggml.merges", read_merges(files), GGUFValueType.STRING, full=True)
    (special or read_special(files)).write(keys)
