"""Tokenizers: text to token ids and back, from the vocabulary that a GGUF file carries."""

from ref_engine.text.tokenizer.base import Tokenizer
from ref_engine.text.tokenizer.load import load_tokenizer
from ref_engine.text.tokenizer.stream import StreamDecoder
from ref_engine.text.tokenizer.vocab import Vocab, read_vocab

__all__ = ["StreamDecoder", "Tokenizer", "Vocab", "load_tokenizer", "read_vocab"]
