"""From a GGUF file to its tokenizer."""

from collections.abc import Callable, Mapping
from os import PathLike, fspath

from ref_engine.errors import TokenizerError
from ref_engine.files.gguf import GGUFFile, open_gguf
from ref_engine.text.tokenizer.base import Tokenizer
from ref_engine.text.tokenizer.bpe import BpeTokenizer
from ref_engine.text.tokenizer.bpe_variants import HybridDnaTokenizer, WhitespaceTokenizer
from ref_engine.text.tokenizer.plamo2 import Plamo2Tokenizer
from ref_engine.text.tokenizer.rwkv import RwkvTokenizer
from ref_engine.text.tokenizer.spm import SpmTokenizer
from ref_engine.text.tokenizer.ugm import UgmTokenizer
from ref_engine.text.tokenizer.vocab import Vocab, read_vocab
from ref_engine.text.tokenizer.wpm import WpmTokenizer

_TOKENIZERS: Mapping[str, Callable[[Vocab], Tokenizer]] = {
    "gpt2": BpeTokenizer,
    "gemma4": BpeTokenizer,
    "hybriddna": HybridDnaTokenizer,
    "whitespace": WhitespaceTokenizer,
    "llama": SpmTokenizer,
    "bert": WpmTokenizer,
    "t5": UgmTokenizer,
    "rwkv": RwkvTokenizer,
    "plamo2": Plamo2Tokenizer,
}


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
    return _TOKENIZERS[vocab.model](vocab)
