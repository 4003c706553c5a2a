"""WordPiece (BERT): pieces that begin a word get a mark, the `##` of the others goes.

Source: `BertModel.set_vocab` of llama.cpp's conversion/bert.py.
"""

from __future__ import annotations

from ref_engine.archs.hf import KeyWriter
from ref_engine.convert.vocab.bytelevel import CONTROL, read_tokens
from ref_engine.convert.vocab.files import VocabFiles
from ref_engine.convert.vocab.special import read_special
from ref_engine.files.types import GGUFValueType


def _marked(token: str, kind: int) -> str:
    if kind == CONTROL:
        return token
    return token[2:] if token.startswith("##") else f"▁{token}"


def write_wordpiece(files: VocabFiles, keys: KeyWriter) -> None:
    tokens, types, pre = read_tokens(files)
    marked = [_marked(token, kind) for token, kind in zip(tokens, types, strict=True)]
    keys.string("tokenizer.ggml.model", "bert", full=True)
    keys.string("tokenizer.ggml.pre", pre, full=True)
    keys.array("tokenizer.ggml.tokens", marked, GGUFValueType.STRING, full=True)
    keys.ints("tokenizer.ggml.token_type", types, full=True)
    read_special(files, n_tokens=len(tokens)).write(keys)
