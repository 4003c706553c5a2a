"""From a GGUF file to its tokenizer."""

from collections.abc import Mapping
from os import PathLike, fspath

from ref_engine.errors import TokenizerError
from ref_engine.files.gguf import GGUFFile, open_gguf
from ref_engine.text.tokenizer.base import Tokenizer
from ref_engine.text.tokenizer.vocab import read_vocab


def load_tokenizer(source: str | PathLike[str] | GGUFFile | Mapping[str, object]) -> Tokenizer:
    """The tokenizer of a GGUF file, given as a path, an open file or its metadata; a file of only a
    vocabulary will do.

    Raises TokenizerError where the vocabulary is missing, of an unknown kind or inconsistent, GGUFError where
    the file cannot be read.
    """
    if isinstance(source, Mapping):
        return _tokenizer_of(source)
    if isinstance(source, GGUFFile):
        return _tokenizer_of(source.metadata)
    with open_gguf(fspath(source)) as file:
        return _tokenizer_of(file.metadata)


def _tokenizer_of(metadata: Mapping[str, object]) -> Tokenizer:
    model = metadata.get("tokenizer.ggml.model")
    if model is None or model in ("none", "no_vocab"):
        raise TokenizerError(f"the file has no tokenizer (tokenizer.ggml.model is {model!r})")
    vocab = read_vocab(metadata)
    match vocab.model:
        case "gpt2" | "gemma4" | "hybriddna" | "whitespace":
            from ref_engine.text.tokenizer.bpe import load_bpe

            return load_bpe(vocab)
        case "llama":
            from ref_engine.text.tokenizer.spm import SpmTokenizer

            return SpmTokenizer(vocab)
        case "bert":
            from ref_engine.text.tokenizer.wpm import WpmTokenizer

            return WpmTokenizer(vocab)
        case "t5":
            from ref_engine.text.tokenizer.ugm import UgmTokenizer

            return UgmTokenizer(vocab)
        case "rwkv":
            from ref_engine.text.tokenizer.rwkv import RwkvTokenizer

            return RwkvTokenizer(vocab)
        case "plamo2":
            from ref_engine.text.tokenizer.plamo2 import Plamo2Tokenizer

            return Plamo2Tokenizer(vocab)
    raise TokenizerError(f"tokenizer.ggml.model is {vocab.model!r}: no such tokenizer is known")
