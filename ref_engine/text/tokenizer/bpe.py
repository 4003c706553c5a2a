"""Byte-pair encoding: the text is split into words, and the characters of each word are merged into tokens.

Follows llama.cpp's `llm_tokenizer_bpe_session`.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import chain

from ref_engine.text.tokenizer.base import Tokenizer
from ref_engine.text.tokenizer.bytelevel import LETTERS, from_letters, to_letters
from ref_engine.text.tokenizer.merge import Pair, compiled_merger, merge, read_merges
from ref_engine.text.tokenizer.pretokenize import split
from ref_engine.text.tokenizer.schemes import SCHEMES
from ref_engine.text.tokenizer.vocab import Vocab, pre_of

_CACHED_PIECES = 1 << 16  # whose ids are kept; English text of a megabyte has some 20 thousand words
_CACHED_LENGTH = 64  # characters; longer pieces hardly come twice

_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))


class BpeTokenizer(Tokenizer):
    """tokenizer.ggml.model "gpt2" and "gemma4"."""

    def __init__(self, vocab: Vocab) -> None:
        super().__init__(vocab)
        pre = pre_of(vocab.model, vocab.pre)
        self._scheme = SCHEMES[pre.scheme]
        self._byte_encoded = pre.byte_encoded
        self._whole_newlines = pre.scheme == "gemma4"
        atoms = LETTERS if pre.byte_encoded else _BYTE_TOKENS
        self._missing = frozenset(atoms) - vocab.token_to_id.keys()
        self._compiled = compiled_merger(
            vocab.token_to_id, vocab.merges, byte_fallback=not pre.byte_encoded and not self._missing
        )
        self._cache: dict[str, tuple[int, ...]] = {}

    @cached_property
    def _ranks(self) -> Mapping[Pair, int]:
        return read_merges(self.vocab.merges)

    def encode_fragment(self, text: str, after_special: bool) -> list[int]:
        if self.vocab.escape_whitespaces:
            text = text.replace(" ", "▁")
        return self.encode_words(text)

    def encode_words(self, text: str) -> list[int]:
        """Ids of `text`, split into words by the scheme of tokenizer.ggml.pre."""
        ids: list[int] = []
        cache = self._cache
        for piece in split(text, self._scheme.cutting):
            piece_ids = cache.get(piece)
            if piece_ids is None:
                words = split(piece, self._scheme.refining)
                piece_ids = tuple(chain.from_iterable(map(self._encode_word, words)))
                if len(piece) <= _CACHED_LENGTH:
                    if len(cache) >= _CACHED_PIECES:
                        cache.clear()
                    cache[piece] = piece_ids
            ids += piece_ids
        return ids

    def _encode_word(self, word: str) -> Iterable[int]:
        spelt = to_letters(word) if self._byte_encoded else word
        if self.vocab.ignore_merges or (self._whole_newlines and not word.strip("\n")):
            whole = self.vocab.token_to_id.get(spelt)
            if whole is not None:
                return (whole,)
        if self._compiled is not None and self._all_known(spelt):
            return (token.id for token in self._compiled.tokenize(spelt))
        return chain.from_iterable(map(self._ids_of, merge(spelt, self._ranks)))

    def _all_known(self, word: str) -> bool:
        """Whether every character is a token, or can be spelt in tokens for bytes."""
        if not self._missing:
            return True
        if self._byte_encoded:
            return self._missing.isdisjoint(word)
        return self.vocab.token_to_id.keys() >= set(word)

    def _ids_of(self, symbol: str) -> list[int]:
        """The token of a merged symbol, or of its bytes where it is none; a byte that is no token is dropped."""
        lookup = self.vocab.token_to_id
        if symbol in lookup:
            return [lookup[symbol]]
        if self._byte_encoded:  # as in llama.cpp only the letters of ASCII bytes are tried: the others have two bytes
            names = [letter for letter in symbol if letter.isascii()]
        else:
            names = [_BYTE_TOKENS[byte] for byte in symbol.encode()]
        return [lookup[name] for name in names if name in lookup]

    def normal_piece(self, text: str) -> bytes:
        if self.vocab.escape_whitespaces:
            return super().normal_piece(text)
        spelt = from_letters(text)
        return text.encode("utf-8", "surrogateescape") if spelt is None else spelt
