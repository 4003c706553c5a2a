"""Vocabularies with scores: SentencePiece's own file, and a tokenizer.json whose BPE falls back to bytes.

Sources: `_create_vocab_sentencepiece` of llama.cpp's conversion/base.py, `Phi3MiniModel.set_vocab` of its
conversion/phi.py, `LlamaHfVocab` of its gguf-py/gguf/vocab.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ref_engine.archs.hf import KeyWriter
from ref_engine.checkpoint import read_json
from ref_engine.convert.vocab.bytelevel import (
    BYTE,
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    load_tokenizer,
    looks_special,
)
from ref_engine.convert.vocab.files import AddedToken, VocabFiles
from ref_engine.convert.vocab.special import read_special, special_texts
from ref_engine.convert.vocab.spm_model import read_pieces
from ref_engine.errors import ConvertError
from ref_engine.files.types import GGUFValueType

_EMPTY, _ADDED = -10000.0, -1000.0  # scores of rows without a token and of added tokens
_MOST_TOKENS = 1 << 22
_KNOWN_TYPES = {4: 1}  # llama.cpp writes user-defined pieces of the file as normal ones


class _Table:
    """Texts, scores and types by token number; rows that nothing fills are unused."""

    def __init__(self, size: int) -> None:
        if not 0 < size <= _MOST_TOKENS:
            raise ConvertError(f"config.json: a vocabulary of {size} tokens is not possible")
        self.texts = [f"[PAD{number}]".encode() for number in range(size)]
        self.scores = [_EMPTY] * size
        self.types = [UNUSED] * size

    def put(self, number: int, text: bytes, score: float, kind: int) -> None:
        """Numbers beyond the model's matrices are left out."""
        if number < len(self.texts):
            self.texts[number], self.scores[number], self.types[number] = text, score, kind

    def write(self, keys: KeyWriter) -> None:
        keys.string("tokenizer.ggml.model", "llama", full=True)
        keys.string("tokenizer.ggml.pre", "default", full=True)
        keys.array("tokenizer.ggml.tokens", self.texts, GGUFValueType.STRING, full=True)
        keys.array("tokenizer.ggml.scores", self.scores, GGUFValueType.FLOAT32, full=True)
        keys.ints("tokenizer.ggml.token_type", self.types, full=True)


def write_sentencepiece(files: VocabFiles, keys: KeyWriter, *, plain_added: bool = False) -> None:
    """tokenizer.model with the tokens that other files add.

    plain_added: as Phi 3 has it, added tokens are special only where they say so, keep their text, and come from
    tokenizer.json, too.
    """
    table = _pieces(files)
    if files.has("added_tokens.json"):
        for text, number in read_json(files.folder / "added_tokens.json").items():
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ConvertError(f"{files.path('added_tokens.json')}: {text!r} has the number {number!r}")
            table.put(number, text.encode(), _ADDED, USER_DEFINED)
    _add(table, files.decoder_tokens(), plain_added)
    if plain_added and files.tokenizer is not None:
        _add(table, files.added.values(), plain_added)
    table.write(keys)
    read_special(files, n_tokens=len(table.texts)).write(keys)


def n_sentencepiece(files: VocabFiles) -> int:
    """Rows of the table that `write_sentencepiece` writes."""
    return len(_pieces(files).texts)


def _pieces(files: VocabFiles) -> _Table:
    pieces = read_pieces(files.folder / "tokenizer.model")
    table = _Table(files.n_tokens or len(pieces))
    for number, piece in enumerate(pieces):
        table.put(number, piece.text, piece.score, _KNOWN_TYPES.get(piece.kind, piece.kind))
    return table


def _add(table: _Table, tokens: Iterable[AddedToken], plain: bool) -> None:
    for token in tokens:
        special = token.special or (not plain and looks_special(token.content))
        text = token.content if special or plain else token.content.replace("▁", " ")
        table.put(token.id, text.encode(), _ADDED, CONTROL if special else USER_DEFINED)


def falls_back_to_bytes(files: VocabFiles) -> bool:
    """Is tokenizer.json a BPE of whole characters, as Llama 2's?"""
    if files.tokenizer is None:
        return False
    model, decoder = files.tokenizer.inner("model"), files.tokenizer.inner("decoder")
    return model.get("type") == "BPE" and model.get("byte_fallback") is True and decoder.get("type") == "Sequence"


def write_fallback(files: VocabFiles, keys: KeyWriter) -> None:
    """tokenizer.json only. It has merges where this kind of vocabulary has scores: all get the same, as in llama.cpp.

    Rows of the matrices beyond the tokens become unused tokens; llama.cpp's converter leaves them out, and the file
    does not load.
    """
    tokenizer = load_tokenizer(files)
    base = tokenizer.get_vocab(with_added_tokens=False)
    named = special_texts(files)
    extra = sorted((t for t in files.added.values() if t.id >= len(base)), key=lambda t: t.id)
    by_id = {number: text for text, number in base.items()}
    if sorted(by_id) != list(range(len(base))) or [t.id for t in extra] != list(
        range(len(base), len(base) + len(extra))
    ):
        raise ConvertError(f"{files.path('tokenizer.json')}: the numbers of its tokens have gaps")
    table = _Table(max(len(base) + len(extra), files.n_tokens or 0))
    for number in range(len(base)):
        table.put(number, by_id[number].encode(), _ADDED, _kind(by_id[number], by_id[number] in named))
    for token in extra:
        table.put(token.id, token.content.encode(), _ADDED, CONTROL if token.content in named else USER_DEFINED)
    table.write(keys)
    read_special(files, n_tokens=len(table.texts)).write(keys)


def _kind(text: str, special: bool) -> int:
    if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", text):
        return BYTE
    return CONTROL if special else NORMAL
